"""Reading an export folder of ours: its config is believed in nothing that the weights or the encoder contradict."""

from pathlib import Path
from typing import Any

from torch import nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.architectures import build
from jepa_pretrain.interop.export import FORMAT
from jepa_pretrain.interop.files import read_folder_json, read_weights
from jepa_pretrain.interop.spec import Spec
from jepa_pretrain.interop.weights import fill, normalisation, shapes
from jepa_pretrain.untrusted import shown


def read_exported(place: Path, spec: Spec) -> tuple[nn.Module, dict[str, Any]]:
    """The encoder and the provenance of an exported folder; with `random:` the architecture alone.

    Args:
        place: The folder.
        spec: How the user named it.

    Raises:
        UserError: It is damaged, of another format, or its config contradicts its weights or itself.
    """
    config, weights = _read_config(place), read_weights(place)
    if (asked := spec.options.get("image_size", config["image_size"])) != config["image_size"]:
        raise UserError(f"{place} takes pictures of {shown(config['image_size'])} px, and {asked} was asked for")
    encoder = build(config["architecture"], shapes(weights), source=str(place))
    _check(config, encoder, str(place))
    if spec.kind == "random":
        return encoder, {}
    fill(encoder, weights, source=str(place))
    return encoder, config["provenance"]


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    config = read_folder_json(folder, "config.json")
    if config.get("format") != FORMAT:
        raise UserError(f"{path} is not of export format {FORMAT}; it may be newer than this package, or no export")
    absent = {"architecture", "normalisation", "image_size", "grid", "width", "provenance"} - config.keys()
    if absent:
        raise UserError(f"{path} lacks {', '.join(sorted(absent))}; export the encoder again")
    for key in ("normalisation", "provenance"):
        if not isinstance(config[key], dict):
            raise UserError(f"{path} is damaged: {key} should hold names and values, found {shown(config[key])}")
    return config


def _check(config: dict[str, Any], encoder: nn.Module, source: str) -> None:
    """Refuse a config whose own statements contradict the encoder that it builds."""
    built = {"grid": list(encoder.grid), "width": encoder.width, "image_size": encoder.image_size}
    for key, expected in built.items():
        if config[key] != expected:
            raise UserError(
                f"{source}/config.json: expected {key} {expected} for this class, found {shown(config[key])}"
            )
    for key, expected in normalisation(encoder).items():
        found = config["normalisation"].get(key)
        if found != expected:
            raise UserError(f"{source}/config.json: expected {key} {expected}, found {shown(found)}")

"""Which format a file or folder is of, from what is in it; a format that is not recognised is an error."""

from pathlib import Path
from typing import Any

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.checkpoint import DAMAGE, read
from jepa_pretrain.interop.files import read_folder_json
from jepa_pretrain.interop.from_convnets import is_convnet, read_convnet
from jepa_pretrain.interop.from_meta import is_jepa, read_jepa
from jepa_pretrain.interop.from_timm import read_timm
from jepa_pretrain.interop.from_transformers import read_transformers
from jepa_pretrain.interop.parts import Parts
from jepa_pretrain.interop.spec import Spec
from jepa_pretrain.untrusted import printable, shown

FORMATS = "an export or a training checkpoint of ours, a file of Meta's, a folder of timm's or of transformers'"


def is_training_checkpoint(checkpoint: dict[str, Any]) -> bool:
    """Whether `fit` wrote it, so far as its keys say."""
    return "state_dict" in checkpoint


def is_ours(config: dict[str, Any]) -> bool:
    """Whether a folder's `config.json` is of an export of ours; which format is checked later."""
    return (
        "format" in config
        or not ({"model_type", "architecture"} & config.keys())
        or isinstance(config.get("architecture"), dict)
    )


def read_folder(config: dict[str, Any], spec: Spec) -> Parts:
    """The parts in a folder of somebody else's.

    Args:
        config: its `config.json`.
        spec: how the user named it.
    """
    if "model_type" in config:
        return read_transformers(config, spec)
    return read_timm(config, spec)


def read_file(checkpoint: dict[str, Any], spec: Spec) -> Parts:
    """The parts in a file of somebody else's.

    Args:
        checkpoint: what `checkpoint.read` gives.
        spec: how the user named it.

    Raises:
        UserError: It is of no format that is known here; it says what was found.
    """
    if is_jepa(checkpoint):
        return read_jepa(checkpoint, spec)
    if is_convnet(checkpoint):
        return read_convnet(checkpoint, spec)
    if "patch_embed.proj.weight" in checkpoint:
        return read_jepa({"encoder": checkpoint}, spec)
    found = printable(", ".join(str(key)[:40] for key in list(checkpoint)[:5])) or shown(checkpoint)
    raise UserError(f"{spec.place} is none of {FORMATS}: it holds {found}")


def read_parts(spec: Spec) -> Parts:
    """The parts of a file or folder of somebody else's.

    Args:
        spec: how the user named it.

    Raises:
        UserError: It is not there, is of no known format, or is ours.
    """
    place = Path(spec.place.removeprefix("local-dir:"))
    try:
        return _parts(place, spec)
    except DAMAGE as error:  # tensors of fewer dimensions than their names promise, and the like
        reason = printable(str(error).strip().splitlines()[0][:120]) if str(error).strip() else type(error).__name__
        raise UserError(f"{place} is damaged, or not what its names say: {reason}") from error


def _parts(place: Path, spec: Spec) -> Parts:
    if place.is_dir():
        config = read_folder_json(place, "config.json")
        if is_ours(config):
            raise UserError(f"{place} is an export of ours: it holds an encoder alone")
        return read_folder(config, spec._replace(place=str(place)))
    return read_file(read(place), spec)

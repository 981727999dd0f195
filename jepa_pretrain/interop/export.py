"""An export is a folder: `model.safetensors`, `config.json`, `README.md`. No pickle, so a stranger's file is safe."""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.architectures import HEADS, build, describe
from jepa_pretrain.interop.card import card
from jepa_pretrain.interop.checkpoint import read
from jepa_pretrain.interop.placing import placed_folder
from jepa_pretrain.interop.weights import fill, normalisation, shapes

FORMAT = 1
FILES = ("model.safetensors", "config.json", "README.md")
PACKAGES = ("jepa-pretrain", "torch", "torchvision", "timm", "lightning")


def write(encoder: nn.Module, folder: str | Path, provenance: dict[str, Any]) -> Path:
    """Write an encoder as an export folder; it appears complete or not at all.

    Args:
        encoder: A `ViT` or `TimmEncoder`.
        folder: Where to write. An earlier export there is replaced; any other non-empty folder is refused.
        provenance: What is known of the training (recipe, step, git revision, shard-index digest, metrics).

    Returns:
        The folder.

    Raises:
        UserError: The folder holds something else, or cannot be written.
    """
    folder, config = Path(folder).absolute(), _config(encoder, provenance)
    with placed_folder(folder, set(FILES)) as fresh:
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in encoder.state_dict().items()}
        save_file(tensors, fresh / "model.safetensors", metadata={"format": "pt"})
        (fresh / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (fresh / "README.md").write_text(card(config, sum(p.numel() for p in encoder.parameters())))
    return folder


def from_checkpoint(path: str | Path, checkpoint: dict[str, Any] | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The encoder and the provenance that a training checkpoint carries under `export`.

    Args:
        path: A checkpoint written by `fit`.
        checkpoint: What is in it, where it was read before.

    Returns:
        The encoder with the checkpoint's weights (for I-JEPA the target encoder), and the provenance.

    Raises:
        UserError: No such file, not a checkpoint, not one of ours, or weights missing or left over.
    """
    checkpoint = read(Path(path)) if checkpoint is None else checkpoint
    entry, state = checkpoint.get("export"), checkpoint.get("state_dict")
    if not isinstance(entry, dict) or not {"prefix", "config"} <= entry.keys() or not isinstance(state, dict):
        raise UserError(f"{path} carries no description of its encoder; was it written by `jepa-pretrain fit`?")
    prefix, provenance = entry["prefix"], entry.get("provenance") or {}
    tensors = all(isinstance(key, str) and isinstance(one, Tensor) for key, one in state.items())
    if not isinstance(prefix, str) or not _is_plain(provenance) or not tensors:
        raise UserError(f"{path} is damaged: its weights or their description are of the wrong kind")
    weights = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    encoder = build(entry["config"], shapes(weights), str(path))
    fill(encoder, weights, source=str(path))
    return encoder.eval(), dict(provenance)


def predictor_from_checkpoint(path: str | Path, checkpoint: dict[str, Any]) -> nn.Module | None:
    """The predictor of a training checkpoint; None where the method has none, or an earlier version wrote it.

    Args:
        path: The checkpoint, for messages.
        checkpoint: What is in it, as `from_checkpoint` accepts it.
    """
    description = checkpoint["export"].get("predictor")
    if description is None:
        return None
    state = checkpoint["state_dict"]
    weights = {name.removeprefix("predictor."): one for name, one in state.items() if name.startswith("predictor.")}
    predictor = build(description, shapes(weights), str(path), among=tuple(HEADS))
    fill(predictor, weights, source=str(path))
    return predictor.eval()


def _is_plain(provenance: object) -> bool:
    """Whether it can be written down as JSON, with the parts that the model card spells out."""
    try:
        json.dumps(provenance)
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(provenance, dict) and all(
        isinstance(provenance.get(key) or {}, dict) for key in ("metrics", "versions")
    )


def _config(encoder: nn.Module, provenance: dict[str, Any]) -> dict[str, Any]:
    """The content of `config.json`."""
    return {
        "format": FORMAT,
        "architecture": describe(encoder),
        "normalisation": normalisation(encoder),
        "image_size": encoder.image_size,
        "grid": list(encoder.grid),
        "width": encoder.width,
        "provenance": {
            **provenance,
            "versions": provenance.get("versions") or _versions(),
            "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions

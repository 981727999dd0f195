"""An export is a folder: `model.safetensors`, `config.json`, `README.md`. No pickle, so a stranger's file is safe."""

import json
import os
import pickle
import platform
import shutil
import tempfile
import zipfile
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.architectures import build, describe
from jepa_pretrain.interop.card import card

FORMAT = 1
FILES = ("model.safetensors", "config.json", "README.md")
PACKAGES = ("jepa-pretrain", "torch", "torchvision", "timm", "lightning")


def export(checkpoint: str, out: str) -> None:
    """Export the encoder of a training checkpoint as a folder that `FrozenEncoder.load` reads.

    Args:
        checkpoint: A checkpoint written by `fit`, for example `runs/NAME/checkpoints/last.ckpt`.
        out: The folder to write: `model.safetensors`, `config.json` and a model card. An earlier export is replaced.
    """
    encoder, provenance = from_checkpoint(checkpoint)
    folder = write(encoder, out, provenance)
    parameters = sum(p.numel() for p in encoder.parameters())
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"Exported {describe(encoder)['class']}, {parameters / 1e6:.2f} M parameters, width {encoder.width}")
    console.print(f"  from {checkpoint}\n  to   {folder}")


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
    folder = Path(folder).absolute()
    if folder.exists() and not _replaceable(folder):
        raise UserError(f"{folder} exists and is no export; give another folder or empty it")
    config = _config(encoder, provenance)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UserError(f"cannot write beside {folder}: {error}") from error
    try:
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in encoder.state_dict().items()}
        save_file(tensors, fresh / "model.safetensors", metadata={"format": "pt"})
        (fresh / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (fresh / "README.md").write_text(card(config, sum(p.numel() for p in encoder.parameters())))
        _publish(fresh, folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def from_checkpoint(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The encoder and the provenance that a training checkpoint carries under `export`.

    Args:
        path: A checkpoint written by `fit`.

    Returns:
        The encoder with the checkpoint's weights (for I-JEPA the target encoder), and the provenance.

    Raises:
        UserError: No such file, not a checkpoint, not one of ours, or weights missing or left over.
    """
    checkpoint = _read(Path(path))
    entry = checkpoint.get("export")
    if not isinstance(entry, dict) or not {"prefix", "config"} <= entry.keys() or "state_dict" not in checkpoint:
        raise UserError(f"{path} carries no description of its encoder; was it written by `jepa-pretrain fit`?")
    prefix = entry["prefix"]
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    encoder = build(entry["config"])
    fill(encoder, weights, source=str(path))
    return encoder.eval(), dict(entry.get("provenance") or {})


def normalisation(encoder: nn.Module) -> dict[str, list[float]]:
    """Mean and deviation per channel, on the scale 0..1, that the encoder really uses."""
    own = encoder.normalise
    return {"mean": own.mean.flatten().tolist(), "std": own.std.flatten().tolist()}


def fill(encoder: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load weights into an encoder, exactly: every tensor of both sides must match in name and shape.

    Args:
        encoder: The module to fill.
        weights: Tensors by name.
        source: Where they come from, for the message.

    Raises:
        UserError: Names missing, names left over, or shapes that differ; it says which.
    """
    own = encoder.state_dict()
    missing, left_over = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or left_over:
        raise UserError(f"{source}: weights missing: {_some(missing)}; not of this architecture: {_some(left_over)}")
    for name, tensor in own.items():
        if tensor.shape != weights[name].shape:
            expected, found = tuple(tensor.shape), tuple(weights[name].shape)
            raise UserError(f"{source}: {name} should have shape {expected}, found {found}; wrong config for it?")
    encoder.load_state_dict(weights)


def _read(path: Path) -> dict[str, Any]:
    """`torch.load` without code execution, and its many ways to fail as one line."""
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}")
    if not zipfile.is_zipfile(path):  # what `torch.save` writes; anything else would only confuse the unpickler
        raise UserError(f"{path} is truncated or not a checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, OSError) as error:
        raise UserError(f"{path} is damaged or not a checkpoint: not just tensors and plain data") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


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


def _replaceable(folder: Path) -> bool:
    """An empty folder, or one that holds an export and nothing else."""
    return folder.is_dir() and {entry.name for entry in folder.iterdir()} <= set(FILES)


def _publish(fresh: Path, folder: Path) -> None:
    """Flush to disk, then put `fresh` in the place of `folder`."""
    for name in FILES:
        with open(fresh / name, "rb") as file:
            os.fsync(file.fileno())
    fresh.chmod(0o755)  # mkdtemp made it private
    if folder.exists():
        old = fresh.with_name(fresh.name + ".old")
        os.rename(folder, old)
        os.rename(fresh, folder)
        shutil.rmtree(old)
    else:
        os.rename(fresh, folder)


def _some(names: list[str]) -> str:
    return (", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")) or "none"

"""`jepa-pretrain export`: an encoder in our own format or somebody else's, read again and compared after writing."""

from pathlib import Path
from typing import Literal

from rich.console import Console
from torch import nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.architectures import describe
from jepa_pretrain.interop.checkpoint import read
from jepa_pretrain.interop.comparing import agreement
from jepa_pretrain.interop.export import predictor_from_checkpoint, write
from jepa_pretrain.interop.extras import extra
from jepa_pretrain.interop.files import read_folder_json
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.interop.reading import is_ours, is_training_checkpoint, read_parts
from jepa_pretrain.interop.spec import parse
from jepa_pretrain.interop.to_graph import write_onnx, write_torch_export, write_torchscript
from jepa_pretrain.interop.to_timm import write_timm
from jepa_pretrain.interop.to_transformers import write_transformers

Format = Literal["ours", "timm", "transformers", "onnx", "torchscript", "torch-export"]
PLAIN = {"timm": write_timm, "onnx": write_onnx, "torchscript": write_torchscript, "torch-export": write_torch_export}


def export(encoder: str, out: str, format: Format = "ours", upload: str | None = None, dry_run: bool = False) -> None:
    """Export an encoder: a training checkpoint, or anything that `--encoder` takes.

    Args:
        encoder: For example `runs/NAME/checkpoints/last.ckpt`, an exported folder, or a file of Meta's.
        out: What to write: a folder for ours, timm and transformers, else a file. An earlier export is replaced.
        format: `ours` is what `FrozenEncoder.load` reads best: `model.safetensors`, `config.json` and a model card.
        upload: Also upload the folder to a model hub, as `OWNER/NAME`, with the account that is logged in there.
        dry_run: With `upload`: only say what would be uploaded.
    """
    frozen = FrozenEncoder.load(encoder)
    console = Console(soft_wrap=True, highlight=False)
    difference = _write(frozen, encoder, Path(out), format)
    inner, parameters = frozen.encoder, sum(p.numel() for p in frozen.parameters())
    console.print(f"Exported {describe(inner)['class']}, {parameters / 1e6:.2f} M parameters, width {frozen.width}")
    console.print(f"  from {encoder}\n  to   {out} ({format}), read again: largest difference {difference:.2g}")
    if upload is not None:
        _upload(Path(out), upload, dry_run, console)


def _write(frozen: FrozenEncoder, source: str, out: Path, format: Format) -> float:
    if format == "ours":
        write(frozen.encoder, out, frozen.provenance)
        return agreement(frozen.encoder, FrozenEncoder.load(out), str(out))
    if format == "transformers":
        return write_transformers(frozen.encoder, predictor_of(source), out)
    return PLAIN[format](frozen.encoder, out)


def predictor_of(source: str) -> nn.Module | None:
    """The predictor that lies beside an encoder, where there is one.

    Args:
        source: How the encoder is named.
    """
    spec = parse(source)
    place = Path(spec.place)
    if place.is_dir() and is_ours(read_folder_json(place, "config.json")):
        return None
    if place.is_file() and is_training_checkpoint(checkpoint := read(place)):
        return predictor_from_checkpoint(place, checkpoint)
    if not place.exists():
        return None
    part = read_parts(spec).predictor
    return None if part is None else part.make(source).eval()


def _upload(folder: Path, name: str, dry_run: bool, console: Console) -> None:
    """One call of the hub's client; a dry run lists the files."""
    if not folder.is_dir():
        raise UserError(f"{folder} is one file: only folders are uploaded (ours, timm, transformers)")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    total = sum(path.stat().st_size for path in files)
    console.print(f"{'would upload' if dry_run else 'uploading'} {len(files)} files, {total / 1e6:.1f} MB, to {name}:")
    for path in files:
        console.print(f"  {path.name} ({path.stat().st_size:,} bytes)")
    if not dry_run:
        hub = extra("huggingface_hub", "an upload")
        hub.create_repo(name, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=str(folder))

"""`jepa-pretrain embed`: features of a folder of pictures, as a table that pandas, polars or DuckDB read."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.images import EXTENSIONS, BrokenPicture, decode
from jepa_pretrain.data.views import CentreCrop
from jepa_pretrain.evals.encoders import resolve
from jepa_pretrain.evals.reader import DEFAULT
from jepa_pretrain.interop.frozen import FrozenEncoder


def embed(
    pictures: str, out: str, encoder: str, layers: int = 1, batch_size: int = 64, device: str | None = None
) -> None:
    """Write the features of all pictures below a folder: columns `file` and `feature`, a list of float32.

    Args:
        pictures: A folder; its subfolders are searched too.
        out: The Parquet file to write; it appears complete or not at all.
        encoder: `pixels`, or what `FrozenEncoder.load` takes, for example an exported folder.
        layers: How many of the last blocks or stages, whose averaged tokens stand side by side.
        batch_size: Pictures at a time.
        device: Where to compute; a GPU where there is one, by default.
    """
    arrow, parquet = _arrow()
    files = _files(Path(pictures))
    model, console = resolve(encoder, DEFAULT), Console()
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model.to(where)
    if isinstance(model, FrozenEncoder) and not model.takes_pictures:
        line = f"{encoder} takes clips of {model.frames} frames, so each picture is held for as long"
        console.print(line, highlight=False, soft_wrap=True)
    part, broken, written = Path(out + ".part"), [], 0
    schema = arrow.schema([("file", arrow.string()), ("feature", arrow.list_(arrow.float32()))])
    try:
        with parquet.ParquetWriter(part, schema, compression="zstd") as table:
            groups = [files[i : i + batch_size] for i in range(0, len(files), batch_size)]
            for group in track(groups, "embedding", console=console, transient=True, disable=not console.is_terminal):
                names, images = _read(group, Path(pictures), model.image_size, broken)
                if names:
                    rows = _features(model, images.to(where), layers)
                    lists = arrow.array(list(rows), type=schema.field("feature").type)
                    table.write_table(arrow.table([arrow.array(names), lists], schema=schema))
                    written += len(names)
        if not written:
            raise UserError(f"none of the {len(files)} pictures of {pictures} can be read")
        part.replace(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    for line in broken[:5]:
        console.print(f"left out: {line}", highlight=False, soft_wrap=True)
    console.print(f"{written} pictures, {len(broken)} left out, written to {out}", highlight=False, soft_wrap=True)


def _arrow() -> tuple[ModuleType, ModuleType]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise UserError("a Parquet file needs pyarrow: pip install 'jepa-pretrain[interop]'") from None


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder of pictures")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower().removeprefix(".") in EXTENSIONS and p.is_file())
    if not found:
        raise UserError(f"{folder} holds no pictures ({', '.join(EXTENSIONS)})")
    return found


def _read(files: list[Path], folder: Path, size: int, broken: list[str]) -> tuple[list[str], torch.Tensor]:
    """Names and pictures (B, 3, size, size) uint8; what cannot be read is noted and left out."""
    names, images = [], []
    for name, image in _decoded(files, folder, broken):
        names.append(name)
        images.append(CentreCrop(size)(image))
    return names, torch.stack(images) if images else torch.empty(0)


def _decoded(files: list[Path], folder: Path, broken: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    for path in files:
        name = str(path.relative_to(folder))
        try:
            yield name, decode(bytearray(path.read_bytes()))
        except (BrokenPicture, OSError) as error:
            broken.append(f"{name}: {error}")


@torch.inference_mode()
def _features(model: torch.nn.Module, images: torch.Tensor, layers: int) -> np.ndarray:
    """(B, D) float32."""
    images = model.held(images) if isinstance(model, FrozenEncoder) else images
    return torch.cat([one.mean(dim=1) for one in model.forward_layers(images, layers)], dim=-1).float().cpu().numpy()

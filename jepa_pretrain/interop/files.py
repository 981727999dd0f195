"""Reading the files of a folder that a stranger may have written: JSON and safetensors, in one file or several."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.checkpoint import read
from jepa_pretrain.interop.kinds import found
from jepa_pretrain.untrusted import MIB, parse_json, printable, read_text, shown

LARGEST = 16 * MIB  # bytes of a config.json; a million class names fit
WEIGHTS, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"


def read_folder_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of a folder that holds names and values.

    Args:
        folder: Where it lies.
        name: The file; a link out of the folder is refused.

    Raises:
        UserError: It is missing, damaged, too large or something else.
    """
    path = folder / name
    if not path.is_file():
        raise UserError(f"{folder} is no exported encoder: no {name} there (`jepa-pretrain export` makes one)")
    content = parse_json(read_text(inside(path), LARGEST), str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it should hold names and values, found {shown(content)}")
    return content


def inside(path: Path) -> Path:
    """A file of the folder itself: a link out of it would let an export show what lies elsewhere.

    A hub's cache keeps its files in `blobs` beside `snapshots`, with links to them; those are followed.
    """
    if path.is_symlink() and path.resolve().parent == path.parent.resolve().parents[1] / "blobs":
        return path
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise UserError(f"{path} is a link that leads out of its folder: put the file itself there if you trust it")
    return path


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a folder: safetensors, whole or in pieces with an index, or a pickle, which is read as plain data.

    Raises:
        UserError: There are none, a piece is missing, or a file is damaged.
    """
    if (folder / WEIGHTS).is_file():
        return _safetensors(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return _pieces(folder)
    if (folder / PICKLE).is_file():
        return read(inside(folder / PICKLE))
    raise UserError(f"no weights at {folder / WEIGHTS}")


def _pieces(folder: Path) -> dict[str, Tensor]:
    where = read_folder_json(folder, INDEX).get("weight_map")
    names = set(where.values()) if isinstance(where, dict) else set()
    if not names or not all(isinstance(one, str) and Path(one).name == one for one in names):
        raise UserError(f"{folder / INDEX} is damaged: weight_map should name files of this folder")
    weights = {}
    for name in sorted(names):
        if not (folder / name).is_file():
            raise UserError(f"no weights at {folder / name}, which {INDEX} names")
        weights |= _safetensors(folder / name)
    return weights


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(inside(path))
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        reason = printable(str(error))[:120]
        raise UserError(
            f"{path} is truncated or damaged: expected safetensors, found {found(path)}; {reason}"
        ) from error

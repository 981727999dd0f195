"""Opening a training checkpoint without running anything that is in it.

A checkpoint is a pickle in a zip file, and a pickle can call any function. torch's restricted reader builds tensors and
plain data and refuses the rest; beside that, nothing in the file may be compressed (torch never does it), so that the
memory needed is bounded by the file's size.
"""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.kinds import found
from jepa_pretrain.untrusted import printable

DAMAGE = (RuntimeError, EOFError, ValueError, LookupError, TypeError, OSError, AttributeError, AssertionError)
DAMAGE += (ArithmeticError, MemoryError, pickle.UnpicklingError)
CALL = re.compile(r"GLOBAL ([\w.]+)")  # what torch says that a pickle asked for


def read(path: Path) -> dict[str, Any]:
    """What a checkpoint holds; its tensors stay on the disk until they are used.

    Args:
        path: A file written by `fit`.

    Raises:
        UserError: No such file, damaged, not a checkpoint, or one that would run code.
    """
    _check_container(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise UserError(_refusal(path, str(error))) from None
    except DAMAGE:
        raise UserError(f"{path} is damaged or not a checkpoint: not just tensors and plain data") from None
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def _check_container(path: Path) -> None:
    """What can be said of the file before anything in it is read."""
    if path.is_dir():  # torch reads the pickles of a sharded checkpoint without any restriction
        raise UserError(f"{path} is a folder: checkpoints in pieces could run code when loaded and are not read")
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [one for one in archive.infolist() if one.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        raise UserError(f"{path} is truncated or not a checkpoint: expected torch's zip, found {found(path)}") from None
    if packed:
        raise UserError(f"{path} is damaged or not a checkpoint: torch does not compress what it writes")


def _refusal(path: Path, reason: str) -> str:
    """One line out of torch's paragraph."""
    if call := CALL.search(reason):
        return f"{path} is refused: it asks for {printable(call[1][:80])} and could run code"
    return f"{path} is damaged or not a checkpoint: not just tensors and plain data"

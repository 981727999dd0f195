"""A folder or a file that appears complete, and checked, or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jepa_pretrain.contracts import UserError


@contextmanager
def placed_folder(folder: Path, files: set[str], what: str = "export") -> Iterator[Path]:
    """An empty folder to write into, which takes the place of `folder` when the block ends well.

    Args:
        folder: Where the result goes; an earlier one there is replaced.
        files: The names in an earlier one; a folder that holds anything else is refused.
        what: What it is called in messages.

    Raises:
        UserError: The folder holds something else, or cannot be written.
    """
    folder = folder.absolute()
    if folder.exists() and not (folder.is_dir() and {entry.name for entry in folder.iterdir()} <= files):
        raise UserError(f"{folder} exists and is no {what}; give another folder or empty it")
    with _beside(folder) as fresh:
        yield fresh
        _flush(fresh)
        fresh.chmod(0o755)  # mkdtemp made it private
        if folder.exists():
            old = fresh.with_name(fresh.name + ".old")
            os.rename(folder, old)
            os.rename(fresh, folder)
            shutil.rmtree(old)
        else:
            os.rename(fresh, folder)


@contextmanager
def placed_file(path: Path) -> Iterator[Path]:
    """A path to write to, in a folder of its own; all that is written there is moved beside `path` afterwards.

    Args:
        path: Where the result goes; an earlier file is replaced.

    Raises:
        UserError: It is a folder, or cannot be written.
    """
    path = path.absolute()
    if path.is_dir():
        raise UserError(f"{path} is a folder: this format is one file, give a name such as {path.name}/encoder")
    with _beside(path) as fresh:
        yield fresh / path.name
        _flush(fresh)
        for part in sorted(fresh.iterdir()):
            os.replace(part, path.with_name(part.name))


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UserError(f"cannot write beside {target}: {error}") from error
    try:
        yield fresh
    except OSError as error:
        raise UserError(f"cannot write {target}: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Wait until all files below a folder are on the disk."""
    for path in filter(Path.is_file, folder.rglob("*")):
        with open(path, "rb") as file:
            os.fsync(file.fileno())

"""What frozen encoders make of shards, computed once and kept on disk."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import astuple
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from jepa_pretrain.contracts import Batch, UserError
from jepa_pretrain.data.index import Index, open_index
from jepa_pretrain.evals.calibration import CALIBRATION, needs_calibration, settle
from jepa_pretrain.evals.encoders import digest
from jepa_pretrain.evals.reader import Reader, tell

VERSION = 3  # of the kept files
T = TypeVar("T")


class Stored(NamedTuple):
    """The content of a kept file."""

    tensors: dict[str, Tensor]
    words: dict[str, str]


class Kind(NamedTuple, Generic[T]):
    """Something that is computed from shards: how, and how it is kept."""

    name: str
    extract: Callable[[nn.Module, Iterable[Batch], int, str, Console], T]  # encoder, stream, samples, title, console
    pack: Callable[[T], Stored]
    unpack: Callable[[Stored], T]  # ValueError where it is not what `pack` made


def both(kind: Kind[T], encoder: nn.Module, train: str, test: str, reader: Reader, console: Console) -> tuple[T, T]:
    """What an encoder makes of a training and a test set, from the cache where it lies there already.

    An untrained encoder gets its batch-norm statistics from the first training samples, before it sees any.

    Args:
        kind: What is wanted.
        encoder: A `FrozenEncoder` or `Pixels`.
        train: Shards: a path, URL, brace or glob pattern, or a folder.
        test: The same for the test set.
        reader: How to read, and where the cache is.
        console: Where to say what is done.
    """
    indices = {source: open_index(source, reader.cache) for source in (train, test)}
    calibrate_on = indices[train].digest if needs_calibration(encoder) else None
    state = digest(encoder)  # before calibration, which changes it
    paths = {one: _path(kind.name, state, encoder, index, calibrate_on, reader) for one, index in indices.items()}
    found = {source: read(path, kind) for source, path in paths.items()}
    if None in found.values():
        tell(encoder, indices[train], reader, console)
        settle(encoder, train, reader, console)
    for source, kept in found.items():
        samples = indices[source].samples
        if kept is not None:
            line = f"{source}: {kind.name} of {samples} samples from the cache"
            console.print(line, highlight=False, soft_wrap=True)
            continue
        found[source] = kind.extract(encoder, reader.stream(encoder, source), samples, source, console)
        write(paths[source], kind.pack(found[source]))
    return found[train], found[test]


def _path(name: str, state: str, encoder: nn.Module, index: Index, calibrated: str | None, reader: Reader) -> Path:
    """Where it lies; any change of weights, samples, clips or preprocessing gives another place."""
    stamps = [(entry.address, _stamp(entry.address)) for entry in index.shards]
    seen = (encoder.image_size, astuple(reader.span(encoder)), reader.clips)
    parts = (VERSION, name, state, seen, index.digest, stamps, calibrated and (CALIBRATION, calibrated))
    return _folder(reader.cache) / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}.safetensors"


def _stamp(address: str) -> tuple[int, int]:
    """Size and time of a local shard, since shards without an index have no checksum; zeros for a remote one."""
    if not os.path.isfile(address):
        return 0, 0
    status = os.stat(address)
    return status.st_size, status.st_mtime_ns


def _folder(cache: str | None) -> Path:
    if cache:
        return Path(cache) / "features"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jepa_pretrain" / "features"


def read(path: Path, kind: Kind[T]) -> T | None:
    """What is kept; a damaged file counts as absent and is replaced."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()  # a file is no dictionary
            return kind.unpack(Stored({name: file.get_tensor(name) for name in names}, file.metadata()))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
        return None


def write(path: Path, stored: Stored) -> None:
    """Under a temporary name first, so that no reader ever sees half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(suffix=".part", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise UserError(f"cannot keep them in {path.parent}: {error}; choose a folder with --cache") from error
    try:
        save_file({name: one.contiguous() for name, one in stored.tensors.items()}, part, metadata=stored.words)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot keep them in {path.parent}: {error}; choose a folder with --cache") from error
    finally:
        Path(part).unlink(missing_ok=True)

"""Where shards come from: patterns to addresses, and any address to a plain tar on this machine.

An address is a local path, a URL that fsspec opens (`https://`, `s3://`, `gs://`, `file://`...) or webdataset's
`pipe:command`. Compressed and remote shards are copied once into a cache folder, under a temporary name that becomes
the final one in one step; a lock lets one process do the work where many want the same shard.
"""

import fcntl
import glob
import gzip
import logging
import os
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import aiohttp
import fsspec
from braceexpand import UnbalancedBracesError, braceexpand
from webdataset import gopen

from jepa_pretrain.contracts import UserError
from jepa_pretrain.untrusted import printable

log = logging.getLogger(__name__)
CHUNK = 1 << 20
LARGEST = 64 << 30  # bytes of a copy in the cache: a stream that does not end must not fill the disk
RATIO = 100  # unpacked bytes for each packed one; gzip reaches 1030 on zeros, and 1.0 on pictures
BY_HAND = "if you trust it, fetch and unpack it by hand; a plain tar on this machine may have any size"
FREE = 64 << 20  # unpacked bytes to which the ratio does not apply
GZIP = b"\x1f\x8b"
SUFFIXES = (".tar", ".tar.gz", ".tgz")
ATTEMPTS = 3
UNREADABLE = (OSError, EOFError, zlib.error, aiohttp.ClientError, ImportError, ValueError)


def is_remote(address: str) -> bool:
    """Whether an address is a URL or a pipe rather than a local path."""
    return "://" in address or address.startswith("pipe:")


def expand(source: str | list[str]) -> list[str]:
    """The addresses of all shards that a pattern names, in order.

    Args:
        source: A path, URL or `pipe:`; braces (`train-{000000..000004}.tar`), glob, a folder, or a list of these.
    """
    patterns = [source] if isinstance(source, str) else list(source)
    found = [address for pattern in patterns for address in _expand(pattern)]
    if not found:
        raise UserError(f"no shards given: {source!r}")
    twice = sorted({address for address in found if found.count(address) > 1}) if len(set(found)) < len(found) else []
    if twice:
        raise UserError(f"shard {twice[0]} is named twice by {source!r}: every sample must be read once")
    return found


def _expand(pattern: str) -> list[str]:
    try:
        pieces = list(braceexpand(pattern))
    except UnbalancedBracesError as error:
        raise UserError(f"cannot read the braces of {pattern!r}: {error}") from None
    addresses: list[str] = []
    for piece in pieces:
        if is_remote(piece):
            addresses.append(piece)
            continue
        piece = os.path.expanduser(piece)
        if os.path.isdir(piece):
            matches = sorted(str(path) for path in Path(piece).iterdir() if path.name.endswith(SUFFIXES))
        elif os.path.isfile(piece):
            matches = [piece]
        else:
            matches = sorted(glob.glob(piece))
        if not matches:
            raise UserError(f"no shards match {piece!r} (working directory {os.getcwd()})")
        addresses += [match if "/" in match else f"./{match}" for match in matches]  # every address has a folder
    return addresses


def name_of(address: str) -> str:
    """A shard's short name: the file name without its suffix."""
    name = address.rstrip("/").rsplit("/", 1)[-1].split("?", 1)[0]
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        name = name.removesuffix(suffix)
    return printable(name)


def default_cache() -> Path:
    """A folder of this user under the system's folder for temporary files."""
    return Path(tempfile.gettempdir()) / f"jepa-pretrain-{os.getuid()}"


def local(address: str, cache: str | None = None) -> str:
    """A plain tar on this machine with the contents of `address`; fetched and unpacked the first time only.

    Args:
        address: One shard.
        cache: Folder for copies; by default one of this user's in the temporary folder.
    """
    if not is_remote(address) and not is_compressed(address):
        return address
    folder = Path(cache).expanduser() if cache else default_cache()
    target = folder / f"{_fingerprint(address)}-{name_of(address)[-80:].replace(' ', '_')}.tar"
    if not target.exists():
        _make_folder(folder)
        with _lock(target.with_suffix(".lock")):
            if not target.exists():
                _copy(address, target)
    return str(target)


def is_compressed(address: str) -> bool:
    """Whether a shard on this machine is packed with gzip, by its first bytes."""
    if os.path.exists(address) and not os.path.isfile(address):  # a named pipe would wait for ever
        raise UserError(f"cannot open shard {address}: it is no regular file")
    try:
        with open(address, "rb") as file:
            return file.read(2) == GZIP
    except OSError as error:
        raise UserError(f"cannot open shard {address}: {error.strerror}") from None


def _fingerprint(address: str) -> str:
    """Names a cached copy: a local file that changes gets another one, a URL's contents are taken as fixed."""
    identity = address
    if not is_remote(address):
        state = os.stat(address)
        identity = f"{os.path.realpath(address)}:{state.st_size}:{state.st_mtime_ns}"
    return sha256(identity.encode()).hexdigest()[:16]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(
            f"cannot make the cache folder {folder}: {error.strerror}; choose another with `cache`"
        ) from None
    if folder == default_cache() and folder.stat().st_uid != os.getuid():
        raise UserError(f"the cache folder {folder} belongs to another user: choose one with `cache`")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds a lock file; it is left behind, since removing it would let two processes hold it."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _copy(address: str, target: Path) -> None:
    """Fetches and unpacks one shard, a megabyte at a time; remote ones get a few attempts."""
    attempts = ATTEMPTS if is_remote(address) else 1
    for attempt in range(1, attempts + 1):
        part = target.with_suffix(f".part-{os.getpid()}")
        try:
            with open_stream(address) as stream, open(part, "wb") as out:
                _unpack(stream, out, address)
                out.flush()
                os.fsync(out.fileno())
            os.replace(part, target)
            return
        except FileNotFoundError:
            raise UserError(f"shard {address} does not exist") from None
        except UNREADABLE as error:
            if attempt == attempts:
                raise UserError(f"cannot read shard {address}: {_reason(error)}") from None
            log.warning("attempt %d to read %s failed (%s); trying again", attempt, address, _reason(error))
            time.sleep(2**attempt)
        finally:
            part.unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _unpack(stream: BinaryIO, out: BinaryIO, address: str) -> None:
    """Copies a stream, through gzip where its first bytes say so; neither endless streams nor bombs fill the disk."""
    head = stream.read(CHUNK)
    packed = _Rejoined(head, stream)
    source = gzip.GzipFile(fileobj=packed) if head[:2] == GZIP else packed
    done = 0
    while piece := source.read(CHUNK):
        done += len(piece)
        if done > LARGEST:
            raise UserError(f"shard {address} is larger than {LARGEST >> 30} GiB: {BY_HAND}")
        if done > FREE and done > RATIO * packed.taken:
            raise UserError(f"shard {address} unpacks to more than {RATIO} times its size, like a bomb: {BY_HAND}")
        out.write(piece)


class _Rejoined:
    """A stream with the bytes that were already taken from it put back in front; counts what was taken again."""

    def __init__(self, head: bytes, stream: BinaryIO):
        self.head, self.stream, self.taken = head, stream, 0

    def read(self, size: int = -1) -> bytes:
        if self.head:
            size = len(self.head) if size < 0 else size
            taken, self.head = self.head[:size], self.head[size:]
        else:
            taken = self.stream.read(size)
        self.taken += len(taken)
        return taken


@contextmanager
def open_stream(address: str) -> Iterator[BinaryIO]:
    """Opens any address for reading from its beginning to its end."""
    if not is_remote(address):  # fsspec would take apart names with `::` or `*` in them
        with open(address, "rb") as stream:
            yield stream
    elif address.startswith("pipe:"):
        with gopen(address, "rb") as stream:
            try:
                yield stream
            except BaseException:  # the command may never end by itself, and its failing matters no more
                stream.ignore_errors = True
                stream.proc.kill()
                raise
    else:
        with fsspec.open(address, "rb") as stream:
            yield stream

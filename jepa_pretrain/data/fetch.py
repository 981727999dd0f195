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
import shutil
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

log = logging.getLogger(__name__)
CHUNK = 1 << 20
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
    return name


def default_cache() -> Path:
    """A folder of this user under the system's folder for temporary files."""
    return Path(tempfile.gettempdir()) / f"jepa-pretrain-{os.getuid()}"


def local(address: str, cache: str | None = None) -> str:
    """A plain tar on this machine with the contents of `address`; fetched and unpacked the first time only.

    Args:
        address: One shard.
        cache: Folder for copies; by default one of this user's in the temporary folder.
    """
    if not is_remote(address):
        try:
            with open(address, "rb") as file:
                if file.read(2) != GZIP:
                    return address
        except OSError as error:
            raise UserError(f"cannot open shard {address}: {error.strerror}") from None
    folder = Path(cache).expanduser() if cache else default_cache()
    target = folder / f"{_fingerprint(address)}-{name_of(address)[-80:].replace(' ', '_')}.tar"
    if not target.exists():
        _make_folder(folder)
        with _lock(target.with_suffix(".lock")):
            if not target.exists():
                _copy(address, target)
    return str(target)


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
                _unpack(stream, out)
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


def _unpack(stream: BinaryIO, out: BinaryIO) -> None:
    """Copies a stream, through gzip where its first bytes say so."""
    head = stream.read(CHUNK)
    if head[:2] != GZIP:
        out.write(head)
        shutil.copyfileobj(stream, out, CHUNK)
        return
    with gzip.GzipFile(fileobj=_Rejoined(head, stream)) as plain:
        shutil.copyfileobj(plain, out, CHUNK)


class _Rejoined:
    """A stream with the bytes that were already taken from it put back in front."""

    def __init__(self, head: bytes, stream: BinaryIO):
        self.head, self.stream = head, stream

    def read(self, size: int = -1) -> bytes:
        if not self.head:
            return self.stream.read(size)
        size = len(self.head) if size < 0 else size
        taken, self.head = self.head[:size], self.head[size:]
        return taken


@contextmanager
def open_stream(address: str) -> Iterator[BinaryIO]:
    """Opens any address for reading from its beginning to its end."""
    if address.startswith("pipe:"):
        with gopen(address, "rb") as stream:
            yield stream
    else:
        with fsspec.open(address, "rb") as stream:
            yield stream

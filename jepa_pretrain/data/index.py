"""What a set of shards holds: read from `index.json` where there is one, else from a walk over the tar headers."""

import json
import logging
import os
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from rich.progress import track

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.archive import Shard
from jepa_pretrain.data.fetch import UNREADABLE, expand, is_compressed, is_remote, local, name_of, open_stream
from jepa_pretrain.data.manifest import LARGEST, SMALLEST, class_names, parse
from jepa_pretrain.untrusted import read_text, text_of

log = logging.getLogger(__name__)
FILE = "index.json"
CLASSES = "classes.txt"


@dataclass(frozen=True)
class Entry:
    """One shard of an index.

    Args:
        address: Path or URL.
        samples: How many samples it holds.
        bytes: Its size as stored; 0 where unknown.
        sha256: Its checksum as stored; empty where unknown.
    """

    address: str
    samples: int
    bytes: int = 0
    sha256: str = ""

    @property
    def name(self) -> str:
        """The shard's short name, as it appears in `Batch.key`."""
        return name_of(self.address)

    def open(self, cache: str | None = None) -> Shard:
        """Opens the shard, fetching it first where that is needed."""
        return Shard(local(self.address, cache), self.name, self.samples)


@dataclass(frozen=True)
class Index:
    """The shards behind a pattern, how many samples each holds, and the names of the classes.

    Args:
        shards: In the order of the pattern.
        classes: Class names; empty where unknown.
        cache: Folder for copies of compressed and remote shards.
    """

    shards: list[Entry]
    classes: list[str] = field(default_factory=list)
    cache: str | None = None

    @property
    def samples(self) -> int:
        """All samples of all shards."""
        return sum(entry.samples for entry in self.shards)

    @property
    def sizes(self) -> list[int]:
        """Samples per shard."""
        return [entry.samples for entry in self.shards]

    @property
    def digest(self) -> str:
        """A checksum of what is in the shards, wherever they lie."""
        content = [[entry.name, entry.samples, entry.bytes, entry.sha256] for entry in self.shards]
        return sha256(json.dumps([content, self.classes]).encode()).hexdigest()


def open_index(source: str | list[str], cache: str | None = None) -> Index:
    """Finds the shards that a pattern names and what they hold.

    Args:
        source: A path, URL, brace or glob pattern, a folder, or a list of these.
        cache: Folder for copies of compressed and remote shards.
    """
    addresses = expand(source)
    folders = {folder: read_folder(folder) for folder in dict.fromkeys(folder_of(address) for address in addresses)}
    known = {entry.address: entry for entries, _ in folders.values() for entry in entries}
    unknown = [address for address in addresses if address not in known]
    if unknown:
        known.update({entry.address: entry for entry in _scan(unknown, cache)})
    index = Index([known[address] for address in addresses], _classes(folders), cache)
    for entry in index.shards:
        _check_size(entry)
    if index.samples == 0:
        raise UserError(f"the shards of {source!r} hold no samples")
    for entry in index.shards:
        if entry.samples == 0:
            log.warning("shard %s is empty", entry.address)
    return index


def read_folder(folder: str) -> tuple[list[Entry], list[str]]:
    """The entries and classes that a folder's `index.json` (or only `classes.txt`) states; empty without one."""
    source = f"{folder}/{FILE}"
    text = _read(source) if folder else None
    if text is None:
        names = _read(f"{folder}/{CLASSES}") if folder else None
        return [], class_names(names.splitlines(), CLASSES) if names else []
    lines, classes = parse(text, source)
    return [Entry(f"{folder}/{name}", *rest) for name, *rest in lines], classes


def folder_of(address: str) -> str:
    """The folder part of an address, written so that `folder/name` is the address; empty for a pipe."""
    if address.startswith("pipe:") or "?" in address:
        return ""
    return address.rsplit("/", 1)[0] if "/" in address else "."


def _read(address: str) -> str | None:
    """A small text file, or None where it does not exist."""
    if not is_remote(address):
        path = Path(address)
        return read_text(path, LARGEST) if path.is_file() else None
    try:
        with open_stream(address) as stream:
            return text_of(stream, LARGEST, address)
    except UNREADABLE as error:
        log.info("no %s (%s)", address, error)
        return None


def _scan(addresses: list[str], cache: str | None) -> list[Entry]:
    """Counts samples by walking the headers; fetches compressed and remote shards into the cache."""
    work = len(addresses) > 20 or any(is_remote(address) for address in addresses)
    each = track(addresses, "Counting samples", transient=True) if work else addresses
    counts = [(address, len(Shard(local(address, cache), name_of(address)))) for address in each]
    return [Entry(one, count, 0 if is_remote(one) else os.path.getsize(one)) for one, count in counts]


def _classes(folders: dict[str, tuple[list[Entry], list[str]]]) -> list[str]:
    """The one list of classes that all folders agree on."""
    lists = {folder: classes for folder, (_, classes) in folders.items() if classes}
    if len({tuple(classes) for classes in lists.values()}) > 1:
        raise UserError(f"these folders list different classes: {', '.join(lists)}; labels would not mean the same")
    return next(iter(lists.values()), [])


def _check_size(entry: Entry) -> None:
    """A local shard whose size is not the index's is opened now, so that a damaged one is named before training."""
    if is_remote(entry.address):
        return
    if not os.path.isfile(entry.address):
        raise UserError(f"shard {entry.address} is in the index but not on disk")
    found = os.path.getsize(entry.address)
    if entry.samples * SMALLEST > max(found, entry.bytes) and not is_compressed(entry.address):
        raise UserError(
            f"shard {entry.address}: the index says {entry.samples:,} samples, its {found:,} bytes cannot hold so many"
        )
    if entry.bytes and found != entry.bytes:
        entry.open()
        raise UserError(
            f"shard {entry.address} has {found} bytes, the index says {entry.bytes}: fetch or pack it again"
        )

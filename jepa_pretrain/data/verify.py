"""Verifying: every byte of some shards against the index, and every picture and video through the decoder."""

from hashlib import sha256
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.archive import Shard, TooLarge
from jepa_pretrain.data.clips import EXTENSIONS
from jepa_pretrain.data.clips import check as decode_all
from jepa_pretrain.data.fetch import UNREADABLE, expand, is_remote, local, name_of, open_stream
from jepa_pretrain.data.images import BrokenPicture
from jepa_pretrain.data.index import Entry, folder_of, read_folder
from jepa_pretrain.data.labels import label_of
from jepa_pretrain.untrusted import printable

CHUNK = 1 << 20


def verify(shards: str, cache: str | None = None) -> None:
    """Read shards again and compare them with their index: checksums, numbers, and every picture or video.

    Args:
        shards: A path, URL, brace or glob pattern, or a folder.
        cache: Folder for copies of compressed and remote shards.
    """
    console = Console(highlight=False)
    addresses = expand(shards)
    folders = {folder: read_folder(folder) for folder in {folder_of(address) for address in addresses}}
    table = Table("shard", "samples", "verdict", box=None)
    damaged = 0
    for address in track(addresses, "verifying", console=console, disable=not console.is_terminal, transient=True):
        entries, classes = folders[folder_of(address)]
        entry = next((entry for entry in entries if entry.address == address), None)
        samples, faults = check(address, entry, len(classes), cache)
        damaged += bool(faults)
        known = "as the index says" if entry else "readable; no index to compare with"
        verdict = "; ".join(faults[:3]) + (f"; {len(faults) - 3} more" if len(faults) > 3 else "") or known
        table.add_row(Text(name_of(address)), str(samples), Text(printable(verdict)))
    missing = [entry for entries, _ in folders.values() for entry in entries if _missing(entry)]
    for entry in missing:
        table.add_row(Text(entry.name), str(entry.samples), "in the index, but not there")
    console.print(table)
    if damaged or missing:
        total = len(addresses) + len(missing)
        raise UserError(f"{damaged + len(missing)} of {total} shards are damaged or missing: fetch or pack them again")


def _missing(entry: Entry) -> bool:
    return not is_remote(entry.address) and not Path(entry.address).is_file()


def check(address: str, entry: Entry | None, classes: int, cache: str | None = None) -> tuple[int, list[str]]:
    """The number of samples in a shard, and all that is wrong with it.

    Args:
        address: The shard.
        entry: What the index says of it, if anything.
        classes: Number of known classes; 0 where unknown.
        cache: Folder for copies of compressed and remote shards.
    """
    faults: list[str] = []
    try:
        if entry is not None and entry.sha256 and checksum(address) != entry.sha256:
            faults.append("checksum differs")
        shard = Shard(local(address, cache), name_of(address))
    except UserError as error:
        return 0, [*faults, str(error)]
    except UNREADABLE as error:
        return 0, [f"cannot be read: {error}"]
    if entry is not None and len(shard) != entry.samples:
        faults.append(f"the index says {entry.samples} samples")
    for number in range(len(shard)):
        fault = _fault(shard, number, classes)
        if fault:
            faults.append(f"{shard.keys[number]}: {fault}")
    return len(shard), faults


def checksum(address: str) -> str:
    """sha256 of a shard as it is stored."""
    total = sha256()
    with open_stream(address) as stream:
        while chunk := stream.read(CHUNK):
            total.update(chunk)
    return total.hexdigest()


def _fault(shard: Shard, number: int, classes: int) -> str | None:
    try:
        extension = shard.first(number, EXTENSIONS)
        if extension is None:
            return "no picture or video"
        decode_all(shard.read(number, extension), extension)
        label_of(shard, number, classes)
    except (BrokenPicture, TooLarge) as error:
        return str(error)
    except UserError as error:  # names shard and sample, which the caller does as well
        return str(error).partition(": ")[2]
    return None

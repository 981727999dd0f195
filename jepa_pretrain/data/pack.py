"""Packing: pictures and videos from anywhere into size-bounded shards with an index.

Which sample goes into which shard is decided from the listing alone, before any is read; therefore packing can
stop and go on, and many machines can each make their part of the same shards.
"""

import re
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from hashlib import sha256
from pathlib import Path
from threading import Event

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.archive import TooLarge
from jepa_pretrain.data.clips import EXTENSIONS
from jepa_pretrain.data.cuts import Cuts
from jepa_pretrain.data.images import BrokenPicture
from jepa_pretrain.data.order import permutation
from jepa_pretrain.data.shrink import whole
from jepa_pretrain.data.sources import Files, Source, open_source
from jepa_pretrain.data.writer import Bad, Plan, TarWriter, finish_shard, finished, read_parts, shard_name, write_index
from jepa_pretrain.untrusted import printable

BLOCK = 512
SHUFFLE = 0  # the seed of the order in which samples are packed
LISTED = 10  # bad files that are printed; the index has all


class Stopped(Exception):
    """Another thread failed, or the user pressed Ctrl-C."""


def pack(
    source: str,
    out: str,
    split: str = "train",
    shard_mb: int = 256,
    part: str = "1/1",
    workers: int = 2,
    short_side: int | None = None,
    quality: int = 90,
    root: str = "~/.cache/torchvision",
    download: bool = False,
    clip_seconds: float | None = None,
) -> None:
    """Pack pictures or videos into WebDataset shards with an index.

    Run it again after an interruption and it goes on; run it with `part` 1/N ... N/N on N machines that share `out`
    and they make the same shards together as one alone, byte by byte.

    Args:
        source: A folder of pictures or videos (class folders, or flat), torchvision:NAME, or existing shards
            (pattern, URL, folder).
        out: Folder for the shards and index.json.
        split: First part of the shards' names; also the part of a torchvision dataset to take.
        shard_mb: Largest size of a shard, MiB.
        part: I/N packs every N-th shard, beginning with the I-th.
        workers: Shards written at a time.
        short_side: Shrink larger ones to this short side, pixels, and store them as JPEG or H.264; None copies all.
        quality: Of what is encoded anew, 1 to 100.
        root: Where torchvision datasets lie.
        download: Let torchvision download what is missing.
        clip_seconds: Cut videos into clips of about this length, which encodes them anew; None keeps them whole.
    """
    console = Console(highlight=False)
    if not re.fullmatch(r"[A-Za-z0-9_]+", split):
        raise UserError(f"split must be letters, digits and underscores, not {split!r}")
    if shard_mb < 1 or workers < 1 or not 1 <= quality <= 100 or (short_side is not None and short_side < 1):
        raise UserError("shard_mb, workers and short_side must be at least 1, quality between 1 and 100")
    samples: Source = open_source(source, split, root, download)
    if clip_seconds is not None:
        if not isinstance(samples, Files):
            raise UserError("only videos in a folder can be cut: leave clip_seconds out")
        samples = Cuts(samples, clip_seconds, short_side, quality)
    pieces = divide(samples.sizes[permutation(len(samples.sizes), SHUFFLE)], shard_mb << 20)
    identity = [samples.digest, split, shard_mb, short_side, quality if short_side else None]
    plan = Plan(split=split, plan=_digest(identity), shards=len(pieces), classes=samples.classes)
    job = Job(samples, Path(out), plan, pieces, short_side, quality)
    todo = job.todo(*parse_part(part))
    console.print(f"{len(samples.sizes)} samples, {len(pieces)} shards; {len(todo)} to write here", soft_wrap=True)
    job.run(todo, workers, console)
    _tell(job, console)


def parse_part(part: str) -> tuple[int, int]:
    """ "2/8" -> (1, 8): zero-based number and count."""
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"part must be I/N with I from 1 to N, such as 1/4, not {part!r}")
    return int(match[1]) - 1, int(match[2])


def divide(sizes: np.ndarray, limit: int) -> list[range]:
    """Cuts a sequence of samples into shards of at most `limit` bytes (at least one sample each).

    Args:
        sizes: (S,) bytes of each sample's picture, in packing order.
        limit: Bytes.
    """
    stored = (sizes + BLOCK - 1) // BLOCK * BLOCK + 3 * BLOCK  # header, and the label's two blocks
    ends = np.cumsum(stored) + 2 * BLOCK
    pieces, start = [], 0
    while start < len(sizes):
        before = ends[start - 1] - 2 * BLOCK if start else 0
        stop = max(int(np.searchsorted(ends, before + limit, side="right")), start + 1)
        pieces.append(range(start, stop))
        start = stop
    return pieces


class Job:
    """One packing: writes shards of a plan, several at a time.

    Threads suffice: decoding, hashing and writing all run outside Python's lock.

    Args:
        samples: Where the pictures come from.
        out: The folder.
        plan: Names the division.
        pieces: Per shard, its range of the shuffled samples.
        short_side: Pixels; None copies bytes.
        quality: Of pictures that were shrunk.
    """

    def __init__(
        self, samples: Source, out: Path, plan: Plan, pieces: list[range], short_side: int | None, quality: int
    ):
        self.samples, self.out, self.plan, self.pieces = samples, out, plan, pieces
        self.short_side, self.quality, self.stop = short_side, quality, Event()
        self.order = permutation(len(samples.sizes), SHUFFLE)

    def todo(self, number: int, count: int) -> list[int]:
        """Shards of this part that are not complete yet."""
        done = set(finished(self.out, self.plan))
        return [shard for shard in range(number, len(self.pieces), count) if self._name(shard) not in done]

    def run(self, todo: list[int], workers: int, console: Console) -> None:
        """Writes shards; on Ctrl-C or an error all threads stop and leave no half-written shard."""
        columns = (TextColumn("packing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        bar = Progress(*columns, console=console, disable=not console.is_terminal)
        task = bar.add_task("packing", total=sum(len(self.pieces[shard]) for shard in todo))
        with ThreadPoolExecutor(workers) as pool, bar:
            waiting: set[Future[int]] = {pool.submit(self._write, shard) for shard in todo}
            try:
                while waiting:
                    ready, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in ready:
                        bar.advance(task, future.result())
            except BaseException as error:
                self.stop.set()
                pool.shutdown(cancel_futures=True)
                if isinstance(error, KeyboardInterrupt):
                    done = len(finished(self.out, self.plan))
                    console.print(f"interrupted; {done} of {len(self.pieces)} shards are done: run the same to go on")
                raise

    def _name(self, shard: int) -> str:
        return shard_name(self.plan["split"], shard)

    def _write(self, shard: int) -> int:
        """Writes one shard; returns the number of samples looked at."""
        path, bad = self.out / self._name(shard), []
        for stale in self.out.glob(f".{path.name}.part-*"):  # of a run that was killed
            stale.unlink(missing_ok=True)
        with TarWriter(path) as tar:
            for number in self.order[self.pieces[shard].start : self.pieces[shard].stop].tolist():
                if self.stop.is_set():
                    raise Stopped
                try:
                    key, fields = self._sample(number)
                except (BrokenPicture, TooLarge, OSError) as error:
                    bad.append(Bad(name=self.samples.name(number), reason=str(error)))
                else:
                    tar.add(key, fields)
        finish_shard(self.out, tar, self.plan, bad)
        return len(self.pieces[shard])

    def _sample(self, number: int) -> tuple[str, dict[str, bytes]]:
        """A sample as stored; it was decoded once, so that it is known to be whole."""
        stem, fields = self.samples.read(number)
        extension = next((one for one in EXTENSIONS if one in fields), None)
        if extension is None:
            raise BrokenPicture("the sample has no picture or video member")
        kind, data = whole(bytes(fields[extension]), extension, self.short_side, self.quality)
        fields = {kind: data} | {name: other for name, other in fields.items() if name != extension}
        clean = re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[:60].strip("_")
        return f"{number:08d}-{clean}", fields


def _digest(content: list[object]) -> str:
    return sha256(repr(content).encode()).hexdigest()


def _tell(job: Job, console: Console) -> None:
    """Writes the index if all shards are there, and says what was left out."""
    complete = write_index(job.out)
    parts = [part for part in read_parts(job.out) if part["split"] == job.plan["split"]]
    bad = [bad for part in parts for bad in part["bad"]]
    for one in bad[:LISTED]:
        console.print(printable(f"left out: {one['name']}: {one['reason']}"), soft_wrap=True, markup=False)
    if len(bad) > LISTED:
        console.print(f"... and {len(bad) - LISTED} more, listed in the index", soft_wrap=True)
    count, size = sum(part["samples"] for part in parts), sum(part["bytes"] for part in parts)
    console.print(f"{count} samples, {len(parts)} shards, {size / 2**20:.1f} MiB in {job.out}", soft_wrap=True)
    if not complete:
        console.print("other shards are still missing; whoever writes the last one writes index.json", soft_wrap=True)
    elif not count:
        raise UserError(f"none of the {len(bad)} samples could be packed: {job.out} holds nothing to train on")

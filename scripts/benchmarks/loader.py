"""How near the loader comes to the bare decoding limit of the same cores.

    python scripts/benchmarks/loader.py 'data/imagenette/train-*.tar' --workers 2

The limit: as many processes as there are workers, each decoding pictures that already lie in memory, in a plain loop.
The loader does the same work with everything around it: order, tar reads, seeds, labels, batches, and the transport to
the training process. Both take turns, so that a busy machine slows both; processor time per picture in all processes,
which other programs disturb less, is shown as well.

Three kinds of work. "decode" throws each picture away unseen. That flatters the limit: libjpeg-turbo writes pixels past
the caches, so that whoever looks at them first waits for main memory, and no batch is made without looking. "decode,
keep" copies each picture into a tensor that is there already, the least that any loader must do. "decode, crop" makes
the view of I-JEPA and throws it away.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from jepa_pretrain.data.images import EXTENSIONS, decode
from jepa_pretrain.data.index import Index, open_index
from jepa_pretrain.data.order import Draw, Shuffled
from jepa_pretrain.data.pictures import Pictures
from jepa_pretrain.data.stream import Loader
from jepa_pretrain.data.views import RandomCrop, View

HELD = 1024  # pictures each process of the bare loop goes round and round
KEEP = 64  # pictures of the tensor that "decode, keep" fills


def unchanged(image: Tensor) -> Tensor:
    """The view that costs nothing; needs pictures of one size."""
    return image


class Keep(View):
    """Copies pictures of one size into one tensor, round and round."""

    def __init__(self) -> None:
        self.kept, self.count = torch.empty(0), 0

    def __call__(self, image: Tensor) -> Tensor:
        if not len(self.kept):
            self.kept = torch.zeros(KEEP, *image.permute(1, 2, 0).shape, dtype=torch.uint8).permute(0, 3, 1, 2)
        self.count += 1
        return self.kept[self.count % KEEP].copy_(image)


def bare_loop(index: Index, view: View, part: int, seconds: float, start: object, out: object) -> None:
    """One process of the limit: decodes what it holds in memory until time is up."""
    torch.set_num_threads(1)
    slots = Shuffled(index.sizes, HELD).slots(Draw(0, part))
    shards = [entry.open(index.cache) for entry in index.shards]
    places = zip(slots.shard.tolist(), slots.sample.tolist(), strict=True)
    held = [shards[shard].read_first(number, EXTENSIONS) for shard, number in places]
    start.wait()
    done, begin, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        view(decode(held[done % HELD]))
        done += 1
    out.put((done / (time.perf_counter() - begin), (time.process_time() - used) / done))


def bare(loop: Callable[[int, float, object, object], None], workers: int, seconds: float) -> tuple[float, float]:
    """Samples/s of all processes of the limit together, and processor seconds per sample.

    Args:
        loop: What a process does: (number of the process, seconds, barrier to wait at, queue for rate and cost).
        workers: How many there are.
        seconds: How long each works.
    """
    context = get_context("fork")
    start, out = context.Barrier(workers), context.Queue()
    jobs = [context.Process(target=loop, args=(number, seconds, start, out)) for number in range(workers)]
    for job in jobs:
        job.start()
    rates = [out.get() for _ in jobs]
    for job in jobs:
        job.join()
    return sum(rate for rate, _ in rates), sum(used for _, used in rates) / len(rates)


def loader_pass(loader: Loader) -> Callable[[float], tuple[float, float]]:
    """Returns a function that reads for some seconds more; it gives images/s and processor seconds per image."""
    state = {"batches": iter(loader)}

    def read(seconds: float) -> tuple[float, float]:
        for _ in range(2 * loader.num_workers):  # what lay ready while the others had the cores
            state["batches"] = advance(loader, state["batches"])[1]
        done, begin, used = 0, time.perf_counter(), processor_time(loader)
        while time.perf_counter() - begin < seconds:
            count, state["batches"] = advance(loader, state["batches"])
            done += count
        return done / (time.perf_counter() - begin), (processor_time(loader) - used) / done

    return read


def processor_time(loader: Loader) -> float:
    """Seconds that this process and the loader's workers have computed (Linux)."""
    ticks = 0
    for worker in loader._iterator._workers:
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system time
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


class Comparison:
    """Limit and loader in turns, and the table of both.

    Args:
        unit: Of the processor times: "us" or "ms".
        workers: Processes on each side.
        rounds: Turns.
        seconds: Per measurement.
    """

    def __init__(self, unit: str, workers: int, rounds: int, seconds: float) -> None:
        self.scale, self.workers, self.rounds, self.seconds = {"us": 1e6, "ms": 1e3}[unit], workers, rounds, seconds
        costs = f"limit CPU {unit}", f"loader CPU {unit}"
        self.table = Table("work", "limit/s", "loader/s", "ratio", *costs, "ratio", box=None)

    def add(self, name: str, loop: Callable[[int, float, object, object], None], loader: Loader) -> None:
        """Measures one kind of work; medians of the rounds."""
        read = loader_pass(loader)
        rounds = [(*bare(loop, self.workers, self.seconds), *read(self.seconds)) for _ in range(self.rounds)]
        limit, least, reached, used = (median(column) for column in zip(*rounds, strict=True))
        speed, cost = median(one[2] / one[0] for one in rounds), median(one[1] / one[3] for one in rounds)
        times = (f"{limit:.0f}", f"{reached:.0f}", f"{speed:.2f}")
        self.table.add_row(name, *times, f"{least * self.scale:.4g}", f"{used * self.scale:.4g}", f"{cost:.2f}")

    def show(self, title: str) -> None:
        """Prints the table."""
        console = Console()
        console.print(title)
        console.print(f"medians of {self.rounds} rounds; CPU: processor time per sample, of all processes")
        console.print(self.table)


def advance(loader: Loader, batches: object) -> tuple[int, object]:
    """The size of the next batch; begins the next epoch where one ends."""
    batch = next(batches, None)
    if batch is None:
        batches = iter(loader)
        batch = next(batches)
    return len(batch.key), batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", help="pattern of shards; pictures of one size")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=128, help="of the crop, pixels")
    parser.add_argument("--seconds", type=float, default=4.0, help="per measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", default=None)
    options = parser.parse_args()
    index = open_index(options.shards, options.cache)
    for entry in index.shards:
        entry.open(index.cache)  # unpacks compressed ones, and warms the page cache
    comparison = Comparison("us", options.workers, options.rounds, options.seconds)
    crop = RandomCrop(options.size)
    for name, alone, view in (
        ("decode", unchanged, unchanged),
        ("decode, keep", Keep(), unchanged),
        (f"decode, crop {options.size}", crop, crop),
    ):
        loader = Loader(Pictures(index, Shuffled(index.sizes, options.batch), [view]), options.workers)
        comparison.add(name, partial(bare_loop, index, alone), loader)
    comparison.show(f"{index.samples} pictures, batches of {options.batch}, {options.workers} processes")


if __name__ == "__main__":
    main()

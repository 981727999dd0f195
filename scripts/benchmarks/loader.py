"""How near the loader comes to the bare decoding limit of the same cores.

    python scripts/benchmarks/loader.py 'data/imagenette/train-*.tar' --workers 2

The limit: as many processes as there are workers, each decoding (and cropping) pictures that already lie in memory, in
a plain loop. The loader does the same work with everything around it: order, tar reads, seeds, labels, batches, and the
transport to the training process. Both take turns, so that a busy machine slows both; processor time per picture,
which other programs disturb less, is shown as well.
"""

import argparse
import os
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from jepa_pretrain.data.images import EXTENSIONS, decode
from jepa_pretrain.data.index import Index, open_index
from jepa_pretrain.data.order import Shuffled
from jepa_pretrain.data.stream import Loader, Pictures
from jepa_pretrain.data.views import RandomCrop, View

HELD = 512  # pictures each process of the bare loop goes round and round


def unchanged(image: Tensor) -> Tensor:
    """The view that costs nothing; needs pictures of one size."""
    return image


def bare_loop(index: Index, first: int, view: View, seconds: float, start: object, out: object) -> None:
    """One process of the limit: decodes what it holds in memory until time is up."""
    torch.set_num_threads(1)
    shard = next(entry for entry in index.shards if entry.samples).open(index.cache)
    held = [shard.read_first((first + number) % len(shard), EXTENSIONS) for number in range(HELD)]
    start.wait()
    done, begin, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        view(decode(held[done % HELD]))
        done += 1
    out.put((done / (time.perf_counter() - begin), (time.process_time() - used) / done))


def bare(index: Index, view: View, workers: int, seconds: float) -> tuple[float, float]:
    """Images/s of all processes of the limit together, and processor seconds per image."""
    context = get_context("fork")
    start, out = context.Barrier(workers), context.Queue()
    jobs = [
        context.Process(target=bare_loop, args=(index, number * HELD, view, seconds, start, out))
        for number in range(workers)
    ]
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
    table = Table(
        "work", "bare images/s", "loader images/s", "ratio", "bare CPU us", "loader CPU us", "ratio", box=None
    )
    for name, view in (("decode", unchanged), (f"and crop {options.size}", RandomCrop(options.size))):
        read = loader_pass(Loader(Pictures(index, Shuffled(index.sizes, options.batch), [view]), options.workers))
        rounds = [
            (*bare(index, view, options.workers, options.seconds), *read(options.seconds))
            for _ in range(options.rounds)
        ]
        limit, least, reached, used = (median(column) for column in zip(*rounds, strict=True))
        speed, cost = median(one[2] / one[0] for one in rounds), median(one[1] / one[3] for one in rounds)
        times = (f"{limit:.0f}", f"{reached:.0f}", f"{speed:.2f}", f"{least * 1e6:.0f}", f"{used * 1e6:.0f}")
        table.add_row(name, *times, f"{cost:.2f}")
    console = Console()
    console.print(f"{index.samples} pictures, {options.workers} processes, medians of {options.rounds} rounds")
    console.print(table)


if __name__ == "__main__":
    main()

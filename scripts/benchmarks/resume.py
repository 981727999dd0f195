"""What it costs to go on late in an epoch: from a place in it to the names of the next samples, and to their batch.

    python scripts/benchmarks/resume.py                                     # the order alone, up to a billion samples
    python scripts/benchmarks/resume.py --shards 'data/demo/train-*.tar'    # and a loader on real shards

Nothing before the place is read or decoded: the order is a function of (seed, epoch, position), and the index says how
many samples every shard holds. So the cost is that of permuting shard numbers, and one window of samples.
"""

import argparse
import time
from statistics import median

from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.order import Draw, Shuffled
from jepa_pretrain.data.pictures import Pictures
from jepa_pretrain.data.stream import Loader
from jepa_pretrain.data.views import CentreCrop

PLACES = (0.0, 0.5, 0.99)  # of an epoch


def seconds_of_order(samples: int, place: float, batch: int, shard: int) -> float:
    """From nothing to the samples of the first batch behind a place."""
    begin = time.perf_counter()
    order = Shuffled([shard] * (samples // shard), batch)
    order.slots(Draw(3, order.draws[int(place * len(order.draws))]))
    return time.perf_counter() - begin


def seconds_of_batch(shards: str, place: float, batch: int, size: int) -> float:
    """From a place to the decoded batch behind it, without worker processes."""
    index = open_index(shards)
    begin = time.perf_counter()
    order = Shuffled(index.sizes, batch)
    loader = Loader(Pictures(index, order, [CentreCrop(size)]), 0)
    loader.load_state_dict({"epoch": 3, "start": order.draws[int(place * len(order.draws))]})
    next(iter(loader))
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=float, nargs="+", default=[1.28e6, 1e8, 1e9])
    parser.add_argument("--batch", type=int, default=512, help="global batch")
    parser.add_argument("--shard", type=int, default=1000, help="samples per shard")
    parser.add_argument("--shards", help="pattern of real shards to read the batch from, too")
    parser.add_argument("--size", type=int, default=32, help="pixels of the pictures read")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    columns = "".join(f"{f'{place:.0%} of an epoch':>18}" for place in PLACES)
    print(f"{'samples':>14}{columns}   milliseconds, median of {options.rounds}")
    for samples in options.samples:
        times = [
            [seconds_of_order(int(samples), place, options.batch, options.shard) for _ in range(options.rounds)]
            for place in PLACES
        ]
        print(f"{int(samples):>14,}" + "".join(f"{median(every) * 1e3:>18.2f}" for every in times), flush=True)
    if options.shards:
        batch = min(options.batch, 64)
        times = [
            [seconds_of_batch(options.shards, place, batch, options.size) for _ in range(options.rounds)]
            for place in PLACES
        ]
        print(f"{f'a batch of {batch}':>14}" + "".join(f"{median(every) * 1e3:>18.2f}" for every in times))


if __name__ == "__main__":
    main()

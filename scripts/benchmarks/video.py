"""How near the loader comes to the bare video decoder of the same cores.

    python scripts/benchmarks/video.py 'data/videos/train-*.tar' --frames 16 --workers 1

The limit: as many processes as there are workers, each with its videos in memory and PyAV alone: open, seek to the key
frame before a random clip, decode to the clip's end, convert its frames to RGB, throw them away. The loader does the
same work (its own way to find the frames included) and order, tar reads, seeds, labels, the stacking and the transport
to the training process; in the second row, a crop too, which the limit is spared. Both take turns, so that a busy
machine slows both; processor time per clip in all processes, which other programs disturb less, is shown as well.
Videos of one shard set should have one size.
"""

import argparse
import random
import time
from functools import partial
from io import BytesIO

import av
import torch
from loader import Comparison, unchanged

from jepa_pretrain.data.clips import VIDEOS
from jepa_pretrain.data.index import Index, open_index
from jepa_pretrain.data.order import Shuffled
from jepa_pretrain.data.pictures import Pictures
from jepa_pretrain.data.spans import Span
from jepa_pretrain.data.stream import Loader
from jepa_pretrain.data.views import RandomCrop

HELD = 64  # videos that each process of the limit goes round and round


def plain_clip(data: bytes, frames: int, place: float) -> int:
    """Decodes some neighbouring frames with PyAV alone; returns how many there were."""
    with av.open(BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        step = int(1 / (stream.average_rate * stream.time_base))
        first = int(place * max(stream.frames - frames + 1, 1)) * step + (stream.start_time or 0)
        container.seek(first, stream=stream)
        done = 0
        for frame in container.decode(stream):
            if frame.pts >= first:
                frame.to_ndarray(format="rgb24")
                done += 1
            if done == frames:
                break
    return done


def bare_loop(index: Index, frames: int, part: int, seconds: float, start: object, out: object) -> None:
    """One process of the limit."""
    torch.set_num_threads(1)
    shard = index.shards[0].open(index.cache)
    held = [bytes(shard.read_first(number, VIDEOS)) for number in range(min(len(shard), HELD))]
    rng = random.Random(part)
    start.wait()
    done, begin, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        plain_clip(held[done % len(held)], frames, rng.random())
        done += 1
    out.put((done / (time.perf_counter() - begin), (time.process_time() - used) / done))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", help="pattern of shards; videos of one size")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=64, help="of the crop, pixels")
    parser.add_argument("--seconds", type=float, default=4.0, help="per measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    index = open_index(options.shards)
    comparison = Comparison("ms", options.workers, options.rounds, options.seconds)
    for name, view in (("decode", unchanged), (f"decode, crop {options.size}", RandomCrop(options.size))):
        order, span = Shuffled(index.sizes, options.batch), Span(options.frames)
        loader = Loader(Pictures(index, order, [view], span=span), options.workers)
        comparison.add(name, partial(bare_loop, index, options.frames), loader)
    comparison.show(f"{index.samples} videos, clips of {options.frames} frames, batches of {options.batch}")


if __name__ == "__main__":
    main()

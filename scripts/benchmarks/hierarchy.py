"""Steps per second and peak memory of H-JEPA as clips grow longer and levels are added.

    OMP_NUM_THREADS=1 python scripts/benchmarks/hierarchy.py [--device cuda]

Clips of noise; a level has a stride of 2. Where a level trains on its first moments alone, most frames are not encoded.
Every setting runs in a process of its own, whose memory is counted from before the model was made.
"""

import argparse
import multiprocessing
import resource
import time

import torch

from jepa_pretrain.contracts import Batch
from jepa_pretrain.methods.hjepa import HJEPA
from jepa_pretrain.models.abstraction import StateEncoder
from jepa_pretrain.models.hierarchy import Hierarchy
from jepa_pretrain.models.level import Level
from jepa_pretrain.models.reading import plan
from jepa_pretrain.models.temporal import TemporalPredictor
from jepa_pretrain.models.vit import ViT
from jepa_pretrain.objectives.vicreg import VarianceCovarianceLoss
from jepa_pretrain.optim import AdamW
from jepa_pretrain.schedules import Constant

WIDTH = 64
SETTINGS = [(frames, 2, None) for frames in (8, 16, 32)] + [(32, levels, 4) for levels in (1, 2, 3)]


def method(frames: int, levels: int, moments: int | None) -> HJEPA:
    """Level 1 has 2 x 2 tokens, the others are pooled."""
    made = []
    for number in range(levels):
        grids = [((4, 4), (2, 2)), ((2, 2), (1, 1)), ((1, 1), (1, 1))][min(number, 2)]
        predictor = TemporalPredictor(WIDTH, grids[1], width=WIDTH, depth=2, heads=4, context=frames)
        made.append(Level(predictor, StateEncoder(WIDTH, WIDTH, *grids), 2 if number else 1, moments=moments))
    hierarchy = Hierarchy(ViT(32, 8, WIDTH, 2, 4), made, frames)
    return HJEPA(hierarchy, VarianceCovarianceLoss(), AdamW(Constant(1e-3), Constant(0.0)))


def measure(setting: tuple[int, int, int | None], batch: int, steps: int, device: str, answer) -> None:
    """Runs some steps and sends seconds per step and MiB."""
    torch.set_num_threads(torch.get_num_threads() if device != "cpu" else 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    frames, levels, moments = setting
    model = method(frames, levels, moments).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    clip = torch.randint(0, 256, (batch, 3, frames, 32, 32), dtype=torch.uint8, device=device)
    data = Batch([clip], [], torch.zeros(batch), [])
    for step in range(steps + 1):
        if step == 1:  # the first one warms up
            start = time.process_time() if device == "cpu" else _now()
        loss = model.step(data).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = ((time.process_time() if device == "cpu" else _now()) - start) / steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    answer.put((seconds, peak / 1024 if device == "cpu" else torch.cuda.max_memory_allocated() / 2**20))


def _now() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    context = multiprocessing.get_context("fork" if options.device == "cpu" else "spawn")
    print("| frames | levels | moments trained on | frames encoded | steps/s | peak MiB |\n" + "|---" * 6 + "|")
    for setting in SETTINGS:
        answer = context.SimpleQueue()
        child = context.Process(target=measure, args=(setting, options.batch, options.steps, options.device, answer))
        child.start()
        seconds, memory = answer.get()
        child.join()
        read = len(plan(list(method(*setting).hierarchy.levels), setting[0])[0].below)
        print(
            f"| {setting[0]} | {setting[1]} | {setting[2] or 'all'} | {read} | {1 / seconds:.2f} | {memory:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

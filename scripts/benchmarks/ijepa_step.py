"""Peak memory and speed of one I-JEPA training step beside the official implementation's, and whether they agree.

    git clone https://github.com/facebookresearch/ijepa official
    python scripts/benchmarks/ijepa_step.py --official official --model vit_small --patch 16 --image 224 --batch 16
    python scripts/benchmarks/ijepa_step.py --official official --check --model vit_tiny --batch 2

A step is: forward of the target encoder, of the context encoder and of the predictor, backward, AdamW, EMA. Both sides
get the same model size, batch and masks. Each round starts one process per side, in turn, so that neither the peak
memory nor a busy moment of the machine falls on one side alone. Three sides: the official code; ours with one predictor
pass per target block, which is the same computation; ours with `joint=True`, one pass over all blocks, which is not.

CPU time, all threads together, is what to read on a machine that others use; on a GPU it means little.
Memory is what the process holds at its peak above what its imports hold (Linux), or what torch has allocated (CUDA).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from ijepa_check import check
from ijepa_sides import MODELS, Official, Ours, Setting, draw
from rich.console import Console
from rich.table import Table

SIDES = {"official": Official, "ours": lambda s: Ours(s, joint=False), "ours, joint": lambda s: Ours(s, joint=True)}


def resident_bytes() -> int:
    """What this process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(side: str, setting: Setting, steps: int) -> dict:
    """Median seconds of a step and peak bytes, in this process."""
    cuda, before = setting.device == "cuda", resident_bytes()
    torch.manual_seed(0)
    trained, times, work = SIDES[side](setting), [], []
    for at in range(1 + steps):
        batch = draw(setting, seed=at)
        if cuda:
            torch.cuda.synchronize()
        start, busy = time.perf_counter(), time.process_time()
        loss = trained.step(batch)
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        work.append(time.process_time() - busy)
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    bytes_ = peak if cuda else peak - before
    middle = {"seconds": statistics.median(times[1:]), "cpu_seconds": statistics.median(work[1:])}
    return {**middle, "bytes": bytes_, "loss": float(loss)}


def measure_apart(side: str, args: argparse.Namespace) -> dict:
    """The same in a fresh process."""
    environment = with_official(args.official)
    done = subprocess.run(
        [sys.executable, *sys.argv, "--side", side], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def with_official(clone: Path) -> dict[str, str]:
    """This environment with the official clone on Python's path; its package is called `src`."""
    if not (clone / "src" / "helper.py").is_file():
        raise SystemExit(f"{clone} is no clone of facebookresearch/ijepa: src/helper.py is not there")
    paths = [str(clone.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "IJEPA_READY": "1"}


def compare(args: argparse.Namespace, setting: Setting) -> None:
    """Alternates the sides and prints medians over the rounds."""
    found: dict[str, list[dict]] = {side: [] for side in SIDES}
    for turn in range(args.rounds):
        for side in SIDES:
            found[side].append(measure_apart(side, args))
            print(f"round {turn + 1}/{args.rounds}  {side}: {found[side][-1]}", file=sys.stderr, flush=True)
    middle = {
        side: {key: statistics.median(one[key] for one in runs) for key in ("seconds", "cpu_seconds", "bytes")}
        for side, runs in found.items()
    }
    show(middle, args, setting)
    if args.out:
        report = {"setting": setting._asdict(), "rounds": found, "median": middle, "torch": torch.__version__}
        args.out.write_text(json.dumps(report, indent=2) + "\n")


def show(middle: dict[str, dict], args: argparse.Namespace, setting: Setting) -> None:
    threads = "" if setting.device == "cuda" else f", {args.threads} threads"
    precision = "bf16" if setting.bf16 else "fp32"
    title = f"{setting.model}/{setting.patch}, {setting.image} px, batch {setting.batch}, {precision}, {setting.device}"
    table = Table(title=f"I-JEPA step: {title}{threads}; median of {args.rounds} rounds of {args.steps} steps")
    for name in ("", "ms", "images/s", "ratio", "CPU ms", "ratio", "peak MiB", "ratio"):
        table.add_column(name, justify="right" if name else "left")
    base = middle["official"]
    for side, one in middle.items():
        table.add_row(
            side,
            f"{1000 * one['seconds']:.0f}",
            f"{setting.batch / one['seconds']:.1f}",
            f"{base['seconds'] / one['seconds']:.2f}x",
            f"{1000 * one['cpu_seconds']:.0f}",
            f"{base['cpu_seconds'] / one['cpu_seconds']:.2f}x",
            f"{one['bytes'] / 2**20:.0f}",
            f"{one['bytes'] / base['bytes']:.2f}x",
        )
    Console(width=80).print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, help="a clone of facebookresearch/ijepa")
    parser.add_argument("--model", choices=MODELS, default="vit_small")
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--image", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--predictor-width", type=int, default=384)
    parser.add_argument("--predictor-depth", type=int, default=6)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast to bf16 on both sides")
    parser.add_argument("--steps", type=int, default=4, help="timed steps per round, after one that warms up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    parser.add_argument("--check", action="store_true", help="compare the numbers computed, not the speed")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    shape = (args.model, args.patch, args.image, args.batch, args.predictor_width, args.predictor_depth)
    setting = Setting(*shape, args.device, args.bf16)
    if args.side:
        print(json.dumps(measure(args.side, setting, args.steps)))
    elif not args.check:
        compare(args, setting)
    elif "IJEPA_READY" in os.environ:
        sys.exit(0 if check(setting) else "the two implementations differ by more than 1e-5")
    else:
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=with_official(args.official)).returncode)


if __name__ == "__main__":
    main()

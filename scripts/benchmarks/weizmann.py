"""V-JEPA, the same encoder untrained and supervised, and raw pixels, on four actions of nine persons, over three folds.

    python scripts/benchmarks/weizmann.py SHARDS OUT [--steps 200] [--folds 0 1 2] [--encoders pixels]
    python scripts/benchmarks/weizmann.py SHARDS OUT --energies [--steps 300]

SHARDS is a folder of the Weizmann actions (keys `ACTION_sPERSON_a`, and `_b` for the mirror image). Every fold holds
three persons back, from pretraining too; clips are shrunk to 32 pixels. Half of the clips mirror others, so intervals
count pairs. Everything goes through the commands that a user has; what they find is in OUT/results.json.

With `--energies` an H-JEPA of two levels is trained instead, and asked which futures of the persons held back may
follow from one state: what did follow, what the same person did in another action, what another person did in the same
one, and the own past played backwards (AUROC; the mean of the folds). OUT/energies.json.
"""

import argparse
import json
import math
import re
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from jepa_pretrain.cli import main as command
from jepa_pretrain.data.archive import Shard
from jepa_pretrain.data.spans import Span
from jepa_pretrain.data.stream import batches
from jepa_pretrain.data.views import CentreCrop
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.models.energy import auroc, future_energy

PERSONS = 3  # held back in a fold
PROBES = {"linear": [], "attentive": [], "knn": ["--k", "[1,3,5]"]}
RUNS = {"vjepa": "recipes/demo/vjepa.yaml", "supervised": "recipes/demo/supervised_video.yaml"}
HIERARCHY = "recipes/demo/hjepa.yaml"
PRESENT, STRIDE = 8, 2  # the moment after which the future is judged; frames of a video per moment


def split(source: Path, out: Path, fold: int) -> list[str]:
    """Shards of the persons that are kept, and of those held back; patterns of both."""
    found = []
    for part in ("train", "val"):
        (out / part).mkdir(parents=True, exist_ok=True)
        with tarfile.open(out / part / "clips.tar", "w") as tar:
            for key, extension, data in members(source):
                held_back = int(re.search(r"_s(\d+)_", key)[1]) // PERSONS == fold
                if held_back == (part == "val"):
                    info = tarfile.TarInfo(f"{key}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, BytesIO(data))
        packed = ["--split", part, "--short_side", "32", "--quality", "95"]
        command(["shards", "pack", str(out / part), str(out / "shards"), *packed])
        found.append(str(out / "shards" / f"{part}-*.tar"))
    return found


def members(source: Path) -> Iterator[tuple[str, str, bytes]]:
    """Key, extension and bytes of everything in some shards."""
    for shard in (Shard(path) for path in sorted(source.glob("*.tar"))):
        for number, key in enumerate(shard.keys):
            yield from ((key, extension, bytes(data)) for extension, data in shard.fields(number).items())


def train(out: Path, shards: list[str], steps: int, seed: int, wanted: list[str]) -> dict[str, str]:
    """The encoders that are wanted by name, trained on a fold; raw pixels need no training."""
    if wanted == ["pixels"]:
        return {"pixels": "pixels"}
    exports = {name: pretrain(recipe, out / name, shards, steps, seed) for name, recipe in RUNS.items()}
    made = {"pixels": "pixels", "untrained": f"random:{exports['vjepa']}", **exports}
    return {name: made[name] for name in wanted}


def pretrain(recipe: str, run: Path, shards: list[str], steps: int, seed: int) -> str:
    """Trains by a recipe; the folder of the encoder."""
    places = ["--data.train", shards[0], "--data.val", shards[1], "--data.batch_size", "24", "--data.workers", "0"]
    length = ["--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(steps)]
    command(["fit", "--config", recipe, "--run", str(run), "--seed_everything", str(seed), *places, *length])
    return str(run / "export")


@torch.no_grad()
def likely(export: str, source: str) -> dict[str, list[float]]:
    """AUROC of true futures against wrong ones, and error over that of standing still, by the steps of each level."""
    hierarchy, found = FrozenEncoder.load(export).encoder, {}
    span, view = Span(hierarchy.frames, STRIDE), CentreCrop(hierarchy.image_size)
    seen = [(key, clip) for batch in batches(source, view, 24, 0, span=span)
            for key, clip in zip(batch.key, batch.views[0], strict=True)]  # fmt: skip
    clips = torch.stack([clip for _, clip in sorted(seen, key=lambda one: one[0])])  # by action, person, mirroring
    for number, level in enumerate(hierarchy.levels, start=1):
        states = hierarchy.at(number).sequence(clips)  # (B, L, N, D)
        now = PRESENT * (states.shape[1] - 1) // (hierarchy.at(1).sequence(clips[:1]).shape[1] - 1)
        steps = min(now, states.shape[1] - 1 - now)  # as far as the past can be mirrored
        given, future = states[:, now : now + 1], states[:, now + 1 : now + 1 + steps]
        true = future_energy(level, given, future)
        wrong = {
            "same person, another action": future.roll(2 * PERSONS, 0),
            "another person, same action": future.unflatten(0, (-1, 2 * PERSONS)).roll(2, 1).flatten(0, 1),
            "backwards": states[:, now - steps : now].flip(1),
        }
        for kind, other in wrong.items():
            found[f"level {number}, {kind}"] = by_step(auroc, true, future_energy(level, given, other))
        still = (given - future).square().mean((2, 3))
        found[f"level {number}, error over standing still's"] = by_step(
            lambda a, b: float(a.mean() / b.mean()), true, still
        )
    return found


def ratio(one: Tensor, other: Tensor) -> float:
    """Of the means."""
    return float(one.mean() / other.mean())


def by_step(measure: Callable[[Tensor, Tensor], float], one: Tensor, other: Tensor) -> list[float]:
    """Compares two energies `(B, H)` at each step."""
    return [measure(one[:, step], other[:, step]) for step in range(one.shape[1])]


def energies(options: argparse.Namespace) -> None:
    """Trains a hierarchy on every fold and tells what it finds likely of the persons held back."""
    folds = []
    for fold in options.folds:
        out = options.out / f"fold{fold}"
        shards = split(options.shards, out, fold)
        folds.append(likely(pretrain(HIERARCHY, out / "hjepa", shards, options.steps, options.seed), shards[1]))
    mean = {name: torch.tensor([fold[name] for fold in folds]).mean(0).tolist() for name in folds[0]}
    (options.out / "energies.json").write_text(json.dumps({"folds": folds, "mean": mean}, indent=1))
    for name, row in mean.items():
        spread = [max(one) - min(one) for one in zip(*(fold[name] for fold in folds), strict=True)]
        told = " ".join(f"{value:.2f}" for value in row)
        print(f"{name}: {told} (folds differ by up to {max(spread):.2f})")


def judge(out: Path, shards: list[str], encoders: dict[str, str]) -> dict[str, float]:
    """Right answers of every encoder under every probe, out of a fold's clips."""
    found = {}
    for name, encoder in encoders.items():
        for probe, options in PROBES.items():
            if (name, probe) == ("pixels", "attentive"):  # it has no tokens
                continue
            clips = ["--stride", "2", "--clips", "3", "--workers", "0", "--cache", str(out / "cache")]
            clips += ["--frames", "8"] if name == "pixels" else []
            result = out / f"{name}-{probe}.json"
            command(["eval", probe, encoder, *shards, *options, *clips, "--out", str(result)])
            told = json.loads(result.read_text())
            found[f"{name}, {probe}"] = told["top1"] / 100 * told["test_samples"]
    return found


def wilson(right: float, count: float, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share, in per cent."""
    share, width = right / count, z * z / count
    middle, half = share + width / 2, z * math.sqrt(share * (1 - share) / count + width / (4 * count))
    return 100 * (middle - half) / (1 + width), 100 * (middle + half) / (1 + width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path), parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--encoders", nargs="+", default=["pixels", "untrained", *RUNS])
    parser.add_argument("--energies", action="store_true", help="train an H-JEPA and judge futures instead")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.energies:
        energies(options)
        return
    folds = {}
    for fold in options.folds:
        out = options.out / f"fold{fold}"
        shards = split(options.shards, out, fold)
        folds[fold] = judge(out, shards, train(out, shards, options.steps, options.seed, options.encoders))
    total = {name: sum(found[name] for found in folds.values()) for name in folds[options.folds[0]]}
    clips = 8 * PERSONS * len(folds)  # four actions, each with its mirror image
    (options.out / "results.json").write_text(json.dumps({"folds": folds, "total": total, "clips": clips}, indent=1))
    for name, right in total.items():
        low, high = wilson(right / 2, clips / 2)
        print(f"{name}: {100 * right / clips:.1f} % ({low:.1f} to {high:.1f}), {right:.0f} of {clips}")


if __name__ == "__main__":
    main()

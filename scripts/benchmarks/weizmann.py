"""V-JEPA, the same encoder untrained and supervised, and raw pixels, on four actions of nine persons, over three folds.

    python scripts/benchmarks/weizmann.py SHARDS OUT [--steps 200] [--folds 0 1 2] [--encoders pixels]

SHARDS is a folder of the Weizmann actions (keys `ACTION_sPERSON_a`, and `_b` for the mirror image). Every fold holds
three persons back, from pretraining too; clips are shrunk to 32 pixels. Half of the clips mirror others, so intervals
count pairs. Everything goes through the commands that a user has; what they find is in OUT/results.json.
"""

import argparse
import json
import math
import re
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from jepa_pretrain.cli import main as command
from jepa_pretrain.data.archive import Shard

PERSONS = 3  # held back in a fold
PROBES = {"linear": [], "attentive": [], "knn": ["--k", "[1,3,5]"]}
RUNS = {"vjepa": "recipes/demo/vjepa.yaml", "supervised": "recipes/demo/supervised_video.yaml"}


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
    for name, recipe in RUNS.items():
        places = ["--data.train", shards[0], "--data.val", shards[1], "--data.batch_size", "24", "--data.workers", "0"]
        length = ["--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(steps)]
        options = ["--config", recipe, "--run", str(out / name), "--seed_everything", str(seed)]
        command(["fit", *options, *places, *length])
    exports = {name: str(out / name / "export") for name in RUNS}
    made = {"pixels": "pixels", "untrained": f"random:{exports['vjepa']}", **exports}
    return {name: made[name] for name in wanted}


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
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
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

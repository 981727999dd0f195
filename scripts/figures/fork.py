"""The energy of both futures of a fork, of a third one, and of what lies between, for runs with and without z.

    python scripts/figures/fork.py OUT RUN/export [ANOTHER/export ...]     runs of recipes/demo/fork.yaml

Forks are rendered anew, with the third way that never happens in the shards: straight on, off the track. Energies are
of level 1's step that the fork lies in, over the error of the average of both futures (a quarter of their squared
distance): a prediction that averages has 1 at both ends and 0 in the middle. Beside each run with z stands the same
predictor without it, trained here on the states of that run. Writes OUT/fork.json, OUT/fork.md and
OUT/fork.png.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from jepa_pretrain.data.paint import paint
from jepa_pretrain.data.worlds import alike, fork
from jepa_pretrain.evals.rank import effective_rank
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.models.energy import auroc, between, future_energy
from jepa_pretrain.models.hierarchy import Hierarchy
from jepa_pretrain.models.level import Level
from jepa_pretrain.models.temporal import TemporalPredictor

WAYS = (-1, 0, 1)
FRAMES = 16  # of the rendered clips, of which the runs read some
POINTS = 11


def spacing(hierarchy: Hierarchy) -> int:
    """Frames from one that is read to the next: as far apart as they can be."""
    return (FRAMES - 1) // (hierarchy.frames - 1)


def states(hierarchy: Hierarchy, count: int, seed: int, ways: tuple[int, ...]) -> list[Tensor]:
    """States of level 1 for each way of so many pasts: a list of (B, L, N, D)."""
    scenes = alike(fork(len(ways) * count, FRAMES, hierarchy.image_size, np.random.default_rng(seed), ways))
    clips = torch.from_numpy(paint(scenes)[0]).permute(0, 4, 1, 2, 3)[:, :, :: spacing(hierarchy)]
    joined = torch.cat([hierarchy.at(1).sequence(part) for part in clips[:, :, : hierarchy.frames].split(48)])
    return [joined[way :: len(ways)] for way in range(len(ways))]


def without_latent(hierarchy: Hierarchy, steps: int = 500) -> Level:
    """The predictor of level 1 again, without z, trained on the same finished states of other clips."""
    torch.manual_seed(0)
    seen = torch.cat(states(hierarchy, 1024, 21, WAYS[::2]))  # (B, L, N, D)
    level = Level(TemporalPredictor(**hierarchy.levels[0].predictor.config | {"latent": 0}))
    optimizer = torch.optim.AdamW(level.parameters(), 5e-3, weight_decay=0.0)
    with torch.enable_grad():
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
            drawn = seen[torch.randint(len(seen), (64,))]
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(level.predictor(drawn[:, :-1]), drawn[:, 1:]).backward()
            optimizer.step()
    return level.eval()


def judge(hierarchy: Hierarchy, level: Level, pasts: int) -> dict[str, float | list[float]]:
    """All numbers of one way of predicting the states of level 1."""
    left, third, right = states(hierarchy, pasts, 20, WAYS)
    now = FRAMES // 2 // spacing(hierarchy)  # the last moment that the ways share
    given, ends = left[:, : now + 1], [one[:, now + 1] for one in (left, third, right)]
    average = ((ends[0] - ends[2]) / 2).square().flatten(1).mean(1).mean()
    energies = [future_energy(level, given, end.unsqueeze(1)) for end in ends]
    line = between(level, given, ends[0], ends[2], POINTS).mean(0) / average
    happened, other = torch.cat([energies[0], energies[2]]), torch.cat([end.roll(1, 0) for end in ends[::2]])
    found = {
        way: float(energy.mean() / average) for way, energy in zip(("left", "third", "right"), energies, strict=True)
    }
    found["middle"] = float(line[POINTS // 2])
    between_both = future_energy(level, given, ((ends[0] + ends[2]) / 2).unsqueeze(1))
    found["AUROC, middle"] = auroc(happened, between_both)
    found["AUROC, third"] = auroc(happened, energies[1])
    found["AUROC, another clip"] = auroc(happened, future_energy(level, given.repeat(2, 1, 1, 1), other.unsqueeze(1)))
    found["difference of the ways / variance"] = float(4 * average / left.flatten(0, 2).var(0).mean())
    found["effective rank"] = float(effective_rank(torch.cat([left, right]).flatten(0, 1).flatten(1)))
    found["same z for both ways"] = 1.0
    if level.latent is not None:
        z = [level.latent.amortised(given[:, -1], end).argmax(-1) for end in ends[::2]]
        found["same z for both ways"] = float((z[0] == z[1]).float().mean())
    return found | {"line": line.tolist()}


def draw(found: dict[str, dict], path: Path) -> None:
    """Energy along the way from one future to the other, a line for each run."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, one in found.items():
        axes.plot(np.linspace(0, 1, POINTS), one["line"], "--" if "without" in name else "-", label=name)
    axes.set(xlabel="from left (0) to right (1)", ylabel="energy / error of the average", ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=2, fontsize=7)  # beside the curves, not on them
    figure.savefig(path, dpi=110)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out"), parser.add_argument("export", nargs="+")
    parser.add_argument("--pasts", type=int, default=64)
    options = parser.parse_args()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in options.export:
        hierarchy = FrozenEncoder.load(name).encoder
        run, level = Path(name).parent.name, hierarchy.levels[0]
        found[f"{run}, {'with' if level.latent else 'trained without'} z"] = judge(hierarchy, level, options.pasts)
        if level.latent:
            twin = without_latent(hierarchy)
            found[f"{run}, same states, without z"] = judge(hierarchy, twin, options.pasts)
    kinds = [kind for kind in next(iter(found.values())) if kind != "line"]
    lines = ["| run | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{one[kind]:.3f}" for kind in kinds) + " |" for name, one in found.items()]
    (out / "fork.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "fork.md").write_text("\n".join(lines) + "\n")
    draw(found, out / "fork.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""What the two levels of an H-JEPA trained on rendered video keep, how far they predict, and what they find likely.

    python scripts/figures/hjepa.py RUN/export data/bounce OUT --stride 2

Writes OUT/hjepa.json (every number), OUT/hjepa.md (the tables) and OUT/hjepa.png. DATA is a folder of `shards
demo-video`. The moments up to PRESENT are known; level 1 is rolled out moment by moment from there, level 2 in its own
steps. A moment is a tubelet of the encoder; what is true of it is what is true of its last frame.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from jepa_pretrain.data.spans import Span
from jepa_pretrain.data.stream import batches
from jepa_pretrain.data.truth import IN_TIME, truth
from jepa_pretrain.data.views import CentreCrop
from jepa_pretrain.evals.rank import effective_rank
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.models.energy import auroc, future_energy
from jepa_pretrain.models.hierarchy import Hierarchy, lift

PRESENT = 8  # the last moment of level 1 that is known; one of level 2 too
ROLLED = 192  # clips that are predicted
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


class Read(NamedTuple):
    """States of some clips and what is true of them."""

    low: Tensor  # (B, T, N, D) of level 1
    high: Tensor  # (B, L, N', D') of level 2
    known: dict[str, Tensor]


def read(hierarchy: Hierarchy, source: str, most: int, stride: int) -> Read:
    """States of both levels at all moments of the first clips."""
    span, parts, keys = Span(hierarchy.frames, stride), ([], []), []
    for batch in batches(source, CentreCrop(hierarchy.image_size), 64, 0, span=span):
        for level, part in enumerate(parts, start=1):
            part.append(hierarchy.at(level).sequence(batch.views[0]))
        keys += batch.key
        if len(keys) >= most:
            break
    known, step = truth(source, keys, span), hierarchy.tubelet
    known |= {name: known[name][:, step - 1 :: step] for name in IN_TIME}
    return Read(*(torch.cat(part) for part in parts), known)


def fit(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """Weights of a linear map with a constant, (D + 1, Y)."""
    x = F.pad(x, (0, 1), value=1.0)
    return torch.linalg.solve(x.T @ x + ridge * len(x) * torch.eye(x.shape[1]), x.T @ y)


class Probe:
    """A linear map from states to something true; its ridge is chosen on the last fifth of the clips."""

    def __init__(self, states: Tensor, wanted: Tensor) -> None:
        """`(B, L, N, D)`, `(B, L, Y)`."""
        x, y = states.flatten(2), wanted
        self.mean, self.std = x.mean((0, 1)), x.std((0, 1)).clamp_min(1e-6)
        x, cut = (x - self.mean) / self.std, len(x) * 4 // 5
        errors = [
            (F.pad(x[cut:], (0, 1), value=1.0) @ fit(x[:cut].flatten(0, 1), y[:cut].flatten(0, 1), r) - y[cut:])
            .square().mean()
            for r in RIDGES
        ]  # fmt: skip
        self.weights = fit(x.flatten(0, 1), y.flatten(0, 1), RIDGES[int(torch.stack(errors).argmin())])

    def __call__(self, states: Tensor) -> Tensor:
        return F.pad((states.flatten(2) - self.mean) / self.std, (0, 1), value=1.0) @ self.weights


def explained(guess: Tensor, wanted: Tensor) -> float:
    """R^2, averaged over the numbers that are decoded; `(..., Y)` each."""
    guess, wanted = guess.flatten(0, -2), wanted.flatten(0, -2)
    return float((1 - (guess - wanted).square().mean(0) / wanted.var(0)).mean())


def decoded(train: Read, test: Read, stride: int) -> dict[str, dict[str, float]]:
    """R^2 and accuracy by level, at the moments of level 2 (but the first, whose window holds one frame twice)."""
    result = {}
    for name, of in (("level 1", 0), ("level 2", 1)):
        every = 1 if of == 0 else stride  # level 1 is fitted on all frames, and tested on those of level 2
        x, xt = train[of][:, stride // every :], test[of][:, stride // every :: stride // every]
        row = {}
        for what in ("position", "velocity"):
            for which, objects in (("large", slice(0, 1)), ("small", slice(1, None))):
                y = train.known[what][:, stride::every, objects].flatten(2)
                yt = test.known[what][:, stride::stride, objects].flatten(2)
                row[f"{what}, {which}"] = explained(Probe(x, y)(xt), yt)
        shape, wanted = (
            part.known["shape"][:, :1].expand(-1, states.shape[1]) for part, states in ((train, x), (test, xt))
        )
        guess = Probe(x, F.one_hot(shape, 10).float())(xt).argmax(-1)
        row["identity, large"] = float((guess == wanted).float().mean())
        row["effective rank"] = float(effective_rank(xt.flatten(0, 1).flatten(1)))
        result[name] = row
    return result


def last(states: Tensor, given: int) -> Tensor:
    """The last so many moments, all where there are fewer."""
    return states[:, max(states.shape[1] - given, 0) :]


def futures(hierarchy: Hierarchy, test: Read, given: int) -> dict[str, Tensor]:
    """Predicted states of the time after PRESENT: of level 1, of level 2, and level 1's as level 2 sees them."""
    one, two = hierarchy.levels
    steps, past = test.low.shape[1] - 1 - PRESENT, PRESENT // two.stride
    low = one.predictor.rollout(last(test.low[:, : PRESENT + 1], given), horizon=steps)
    high = two.predictor.rollout(last(test.high[:, : past + 1], given), horizon=steps // two.stride)
    lifted = lift(two, low, test.low[:, : PRESENT + 1])[:, past + 1 :]
    return {"low": low, "high": high, "lifted": lifted}


def relative(guess: Tensor, wanted: Tensor) -> list[float]:
    """Squared error over the variance of the target over clips, by horizon: `(B, H, N, D)` each."""
    return ((guess - wanted).square().mean((0, 2, 3)) / wanted.var(0).mean((1, 2))).tolist()


def horizons(hierarchy: Hierarchy, train: Read, test: Read, given: int) -> dict[str, dict[str, list[float]]]:
    """Errors by horizon in moments of level 1: in each level's latent, in level 2's, of the large object's position."""
    stride = hierarchy.levels[1].stride
    now, guess = PRESENT // stride, futures(hierarchy, test, given)
    low, high = test.low[:, PRESENT + 1 :], test.high[:, now + 1 :]
    short, long = list(range(1, low.shape[1] + 1)), list(range(stride, low.shape[1] + 1, stride))
    still_low, still_high = test.low[:, PRESENT:][:, :1].expand_as(low), test.high[:, now:][:, :1].expand_as(high)
    place, place_test = train.known["position"][:, :, 0], test.known["position"][:, PRESENT + 1 :, 0]
    probes = Probe(train.low[:, PRESENT:], place[:, PRESENT:]), Probe(train.high[:, now:], place[:, PRESENT::stride])

    def missed(probe: Probe, states: Tensor, wanted: Tensor) -> list[float]:
        found = probe(states)
        return [1 - explained(found[:, h], wanted[:, h]) for h in range(wanted.shape[1])]

    coarse = place_test[:, stride - 1 :: stride]
    return {
        "own latent": {
            "level 1, rolled out": relative(guess["low"], low), "level 1, nothing moves": relative(still_low, low),
            "level 2": relative(guess["high"], high), "level 2, nothing moves": relative(still_high, high),
        },
        "latent of level 2": {
            "level 1, rolled out": relative(guess["lifted"], high), "level 2": relative(guess["high"], high),
            "nothing moves": relative(still_high, high),
        },
        "decoded position": {
            "level 1, rolled out": missed(probes[0], guess["low"], place_test),
            "level 2": missed(probes[1], guess["high"], coarse),
            "level 1, true states": missed(probes[0], low, place_test),
            "level 2, true states": missed(probes[1], high, coarse),
        },
        "moments": {"level 1": short, "level 2": long},
    }  # fmt: skip


def likely(hierarchy: Hierarchy, test: Read, known: int) -> dict[str, dict[str, list[float]]]:
    """AUROC of true futures against those of another clip, and against the own past played backwards."""
    result = {}
    for name, states, level in zip(("level 1", "level 2"), test[:2], hierarchy.levels, strict=True):
        now = PRESENT if name == "level 1" else PRESENT // level.stride
        given = last(states[:, : now + 1], known)
        steps = min(now, states.shape[1] - 1 - now)  # as far as it can be mirrored
        future = states[:, now + 1 : now + 1 + steps]
        true = future_energy(level, given, future)
        wrong = {"another clip": future.roll(1, 0), "backwards": states[:, now - steps : now].flip(1)}
        energies = {kind: future_energy(level, given, other) for kind, other in wrong.items()}
        result[name] = {k: [auroc(true[:, h], e[:, h]) for h in range(steps)] for k, e in energies.items()}
        result[name]["moments"] = [(h + 1) * (1 if name == "level 1" else level.stride) for h in range(steps)]
    return result


def crossing(errors: dict[str, list[float]], stride: int) -> int | None:
    """Moments of level 1 from which on level 2 is better than level 1, to the end."""
    one, two = errors["level 1, rolled out"], errors["level 2"]
    at = one if len(one) == len(two) else one[stride - 1 :: stride]
    better = [mine < theirs for mine, theirs in zip(two, at, strict=True)]
    first = next((h for h in range(len(better)) if all(better[h:])), None)
    return None if first is None else (first + 1) * stride


def draw(found: dict, path: Path) -> None:
    """The three comparisons by horizon."""
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), ("own latent", "latent of level 2", "decoded position"), strict=True):
        for label, values in found["horizons"][name].items():
            frames = next(f for f in found["horizons"]["moments"].values() if len(f) == len(values))
            colour, flat = "C0" if "level 1" in label else "C1" if "level 2" in label else "grey", "rolled" not in label
            style = ":" if "nothing" in label or "true" in label else "-"
            axes.plot(frames, values, style, marker="o" if flat else ".", color=colour, label=label)
        if found["crossing"][name]:
            axes.axvline(found["crossing"][name], color="grey", linewidth=0.8)
        axes.set(title=name, xlabel="moments of level 1 ahead", ylabel="error / variance of the target", ylim=(0, None))
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def table(found: dict) -> str:
    """The numbers as Markdown."""
    kinds = list(found["decoded"]["trained"]["level 1"])
    lines = ["| | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for state, levels in found["decoded"].items():
        lines += [f"| {name}, {state} | " + " | ".join(f"{v:.2f}" for v in row.values()) + " |"
                  for name, row in levels.items()]  # fmt: skip
    for name, rows in found["horizons"].items():
        lines += ["", f"{name}" + (f" (crossing: {found['crossing'][name]})" if name in found["crossing"] else ""), ""]
        lines += [f"* {label}: " + " ".join(f"{v:.2f}" for v in values) for label, values in rows.items()]
    lines += ["", "AUROC", ""]
    lines += [f"* {name}, {k}: " + " ".join(f"{v:.2f}" for v in row) for name, rows in found["auroc"].items()
              for k, row in rows.items()]  # fmt: skip
    return "\n".join(lines) + "\n"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export"), parser.add_argument("data"), parser.add_argument("out")
    parser.add_argument("--clips", type=int, default=512, help="of each split")
    parser.add_argument("--stride", type=int, default=1, help="of the span that the run was trained on")
    parser.add_argument("--given", type=int, default=1, help="states that a rollout knows, 1 as `alone` trains it")
    options = parser.parse_args()
    out, found = Path(options.out), {"decoded": {}}
    out.mkdir(parents=True, exist_ok=True)
    for state, name in (("untrained", f"random:{options.export}"), ("trained", options.export)):
        hierarchy = FrozenEncoder.load(name).encoder
        train, test = (
            read(hierarchy, f"{options.data}/{part}-*.tar", options.clips, options.stride) for part in ("train", "val")
        )
        found["decoded"][state] = decoded(train, test, hierarchy.levels[1].stride)
    test = Read(test.low[:ROLLED], test.high[:ROLLED], {name: one[:ROLLED] for name, one in test.known.items()})
    found["horizons"], found["auroc"] = (
        horizons(hierarchy, train, test, options.given),
        likely(hierarchy, test, options.given),
    )
    stride, kinds = hierarchy.levels[1].stride, ("own latent", "latent of level 2", "decoded position")
    found["crossing"] = {name: crossing(found["horizons"][name], stride) for name in kinds}
    (out / "hjepa.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "hjepa.md").write_text(table(found))
    draw(found, out / "hjepa.png")
    print((out / "hjepa.md").read_text())


if __name__ == "__main__":
    main()

"""What frozen states know of a rendered scene: position, velocity, colour and identity, each read by ridge regression.

The states are those of one moment: all tokens of it side by side, and their average. Each level of a hierarchy is read
at the same frame. The penalty is chosen for each factor on a tenth of the training videos, then the regression is done
once more on all of them and meets the test set, once. Velocity is what leads from that frame to the next one.
"""

import time
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.index import open_index
from jepa_pretrain.evals import result
from jepa_pretrain.evals.calibration import settle
from jepa_pretrain.evals.encoders import digest, resolve
from jepa_pretrain.evals.interval import wilson
from jepa_pretrain.evals.reader import DEFAULT, Reader, tell
from jepa_pretrain.evals.ridge import r2, solve
from jepa_pretrain.evals.states import States, layers_of, moment_of, read

HELD_OUT = 0.1
PENALTIES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
IDENTITY = "shape"


def decode(
    encoder: str,
    train: str,
    test: str,
    out: str | None = None,
    what: int = 0,
    penalties: tuple[float, ...] = PENALTIES,
    seed: int = 0,
    reader: Reader = DEFAULT,
) -> None:
    """Decode known factors of rendered videos from frozen states, at each level of a hierarchy.

    Args:
        encoder: An exported folder, `random:FOLDER` (the same architecture untrained, the baseline to compare with),
            `timm:NAME`, `random:NAME`, or `pixels`.
        train: Training shards of `shards demo-video`: a path, URL, brace or glob pattern, or a folder.
        test: Test shards of it.
        out: JSON file to write, or a folder to write it in; into RUN/eval for `report`.
        what: Number of the object that is asked about; 0 is the large one.
        penalties: Penalties to try, for features whose mean squared norm is 1.
        seed: Seed of the split.
        reader: How shards are read.
    """
    if not penalties or min(penalties) <= 0:
        raise UserError("penalties needs at least one positive number")
    result.check_out(out)
    console, start = Console(), time.perf_counter()
    model = resolve(encoder, reader)
    state = digest(model)
    tell(model, open_index(train, reader.cache), reader, console)
    settle(model, train, reader, console)
    train_set, test_set = (read(model, source, what, reader, console) for source in (train, test))
    seconds = time.perf_counter() - start
    found = {
        name: measure(train_set, test_set, name, tuple(penalties), seed, reader.place) for name in train_set.layers
    }
    outcome = result.stated("decode", model, len(train_set.video), len(test_set.video), reader.place) | {
        "digest": state, "train": train, "test": test, "object": what, "frame": moment_of(layers_of(model)),
        "layers": found, "reader": asdict(reader), "seed": seed,
        "selection": f"{HELD_OUT:.0%} of the training videos; fitted again on all of them",
        "seconds": {"states": round(seconds, 2), "ridge": round(time.perf_counter() - start - seconds, 2)},
    }  # fmt: skip
    console.print(table(outcome))
    result.write(outcome, out, console)


def measure(
    train: States, test: States, layer: str, penalties: tuple[float, ...], seed: int, device: torch.device
) -> dict[str, dict[str, Any]]:
    """How well each factor is read from one layer.

    Args:
        train: Training states.
        test: Test states.
        layer: Which of their layers.
        penalties: Candidates, chosen for each factor by itself.
        seed: Which training videos choose.
        device: Where the regression is done.

    Returns:
        By factor: `score` (R^2, or for identity the accuracy in percent), its `interval`, `penalty`; factors that do
        not vary in the training set are left out.
    """
    x, y = train.layers[layer].to(device), test.layers[layer].to(device)
    held = _held_out(train.video, seed).to(device)
    found = {}
    for name, value in train.truth.items():
        target = _one_hot(value, train) if name == IDENTITY else value
        target = target.to(device)
        if (target.std(dim=0) < 1e-6).all():
            continue
        tried = [_error(one(x[held]), target[held], name) for one in solve(x[~held], target[~held], penalties)]
        penalty = penalties[min(range(len(tried)), key=tried.__getitem__)]
        predicted = solve(x, target, (penalty,))[0](y).cpu()
        known = test.truth[name]
        score, interval = _accuracy(predicted, known) if name == IDENTITY else r2(predicted, known)
        found[name] = {"score": score, "interval": interval, "penalty": penalty, "dimensions": x.shape[1]}
    return found


def _held_out(video: Tensor, seed: int) -> Tensor:
    """(n,) whether a row's video is held out: all clips of a video are on one side."""
    count = int(video.max()) + 1
    if count < 2:
        raise UserError("decoding needs two training videos at least")
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: max(1, round(HELD_OUT * count))]
    return torch.isin(video, chosen)


def _one_hot(shape: Tensor, train: States) -> Tensor:
    return F.one_hot(shape, int(train.truth[IDENTITY].max()) + 1).float()


def _error(predicted: Tensor, target: Tensor, name: str) -> float:
    """What the penalty is chosen by: wrong guesses of identity, else the squared error."""
    if name == IDENTITY:
        return (predicted.argmax(1) != target.argmax(1)).double().mean().item()
    return ((predicted - target) ** 2).mean().item()


def _accuracy(predicted: Tensor, shape: Tensor) -> tuple[float, list[float]]:
    hits = int((predicted.argmax(1) == shape).sum())
    return 100 * hits / len(shape), [100 * bound for bound in wilson(hits, len(shape))]


def table(outcome: dict[str, Any]) -> Table:
    """Layers by factors.

    Args:
        outcome: As `decode` writes it.
    """
    layers = outcome["layers"]
    factors = list(next(iter(layers.values())))
    samples = f"{outcome['train_samples']} train, {outcome['test_samples']} test clips, frame {outcome['frame']}"
    drawn = Table(title=f"decoded from {outcome['encoder']} ({samples})", title_justify="left")
    drawn.add_column("states of")
    for name in factors:
        drawn.add_column(f"{name}, {'% right' if name == IDENTITY else 'R2'}", justify="right")
    for name, found in layers.items():
        drawn.add_row(name, *(_cell(found[factor], factor) for factor in factors))
    return drawn


def _cell(one: dict[str, Any], factor: str) -> str:
    places = 1 if factor == IDENTITY else 3
    low, high = one["interval"]
    return f"{one['score']:.{places}f}\n({low:.{places}f} to {high:.{places}f})"

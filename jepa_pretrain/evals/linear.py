"""Linear probing of a frozen encoder, as I-JEPA reports it (Assran et al. 2023, https://arxiv.org/abs/2301.08243, A.2):
the best of {last layer, last four layers} x {linear, batch norm + linear} x learning rate x weight decay.

The head is selected on a tenth of the training set, held out class by class; the winner is trained once more on the
whole training set and then meets the test set, once.
"""

import time
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from rich.console import Console

from jepa_pretrain.contracts import UserError
from jepa_pretrain.evals import heads, result, splits
from jepa_pretrain.evals.encoders import digest, resolve
from jepa_pretrain.evals.features import Features, load
from jepa_pretrain.evals.reader import DEFAULT, Reader

HELD_OUT = 0.1


class Head(NamedTuple):
    """One candidate."""

    layers: str  # "last" or "last four"
    batch_norm: bool
    lr: float
    weight_decay: float

    def __str__(self) -> str:
        kind = "batch norm + linear" if self.batch_norm else "linear"
        return f"{self.layers} layer{'s' * (self.layers != 'last')}, {kind}, lr {self.lr:g}, wd {self.weight_decay:g}"


class Sweep(NamedTuple):
    """Which heads are tried and how they are trained."""

    epochs: int = 50
    batch_size: int = 256
    lr: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    weight_decay: tuple[float, ...] = (0.0, 3e-5)
    seed: int = 0


def linear(
    encoder: str,
    train: str,
    test: str,
    out: str | None = None,
    shots: int | None = None,
    epochs: int = 50,
    lr: tuple[float, ...] = Sweep().lr,
    weight_decay: tuple[float, ...] = Sweep().weight_decay,
    seed: int = 0,
    reader: Reader = DEFAULT,
) -> None:
    """Linear probe: how well do the frozen features classify through a linear layer?

    Args:
        encoder: An exported folder, `random:FOLDER` (the same architecture untrained, the baseline to compare with),
            `timm:NAME`, `random:NAME`, or `pixels`.
        train: Training shards with labels: a path, URL, brace or glob pattern, or a folder.
        test: Test shards with labels.
        out: JSON file to write, or a folder to write it in; into RUN/eval for `report`.
        shots: Use only this many labelled pictures of each class; all without it.
        epochs: Passes over the training features.
        lr: Learning rates to try, for features whose mean squared norm is 1.
        weight_decay: Weight decays to try.
        seed: Seed of the split, of the shots and of the order.
        reader: How shards are read.
    """
    sweep = Sweep(epochs, reader.batch_size, tuple(lr), tuple(weight_decay), seed)
    check(sweep)
    result.check_out(out)
    console, start = Console(), time.perf_counter()
    model = resolve(encoder, reader)
    state = digest(model)
    train_set, test_set = load(model, train, test, reader, console)
    splits.check_labels(train_set.label, test_set.label)
    train_set, test_set = train_set.labelled().to(reader.place), test_set.labelled().to(reader.place)
    if shots is not None:
        train_set = train_set.pick(splits.few(train_set.label.cpu(), shots, seed).to(reader.place))
    read = time.perf_counter()
    found = probe(train_set, test_set, sweep)
    hits = round(found["top1_share"] * len(test_set.label))
    outcome = result.summary("linear", model, train_set.label, test_set.label, hits) | {
        "digest": state, "train": train, "test": test, "shots": shots,
        "reader": asdict(reader), **found,
        "seconds": {"features": round(read - start, 2), "heads": round(time.perf_counter() - read, 2)},
    }  # fmt: skip
    top5 = [("top-5", f"{outcome['top5']:.2f} %")] if outcome["top5"] is not None else []
    chosen = [("head", str(Head(**outcome["chosen"]))), ("its held-out top-1", f"{outcome['chosen_val']:.2f} %")]
    seconds = f"{outcome['seconds']['features']:.0f} s features, {outcome['seconds']['heads']:.0f} s heads"
    if outcome["at_edge"]:
        chosen.append(("note", "the best learning rate is the last one tried: widen --lr"))
    result.show(outcome, console, [*top5, *chosen, ("heads tried", str(len(outcome["heads"]))), ("time", seconds)])
    result.write(outcome, out, console)


def check(sweep: Sweep) -> None:
    """Refuse a sweep without candidates or with impossible ones."""
    if not sweep.lr or not sweep.weight_decay or min(sweep.lr) <= 0 or min(sweep.weight_decay) < 0:
        raise UserError("lr needs at least one positive number, weight_decay at least one that is not negative")
    if sweep.epochs < 1 or sweep.batch_size < 1:
        raise UserError("epochs and batch_size must be at least 1")


def probe(train: Features, test: Features, sweep: Sweep) -> dict[str, Any]:
    """Select a head on a part of the training set, train it on all of it, test it once.

    Args:
        train: Labelled training features.
        test: Labelled test features.
        sweep: The candidates.

    Returns:
        `heads` (every candidate with its held-out accuracy), `chosen`, `chosen_val`, `top1_share`, `top5`, and the
        settings; accuracies in percent.
    """
    classes = int(train.label.max()) + 1
    scored = select(train, classes, sweep)
    chosen, score = max(scored, key=lambda pair: pair[1])  # the first of equals
    trained = _train(train, [chosen], classes, sweep)
    view = _view(test, chosen.layers)
    top5 = heads.accuracy(trained, view, test.label, top=5).item() if classes > 5 else None
    return {
        "chosen": chosen._asdict(),
        "at_edge": at_edge(scored),
        "chosen_val": 100 * score,
        "top1_share": heads.accuracy(trained, view, test.label).item(),
        "top5": None if top5 is None else 100 * top5,
        "heads": [head._asdict() | {"val_top1": 100 * value} for head, value in scored],
        "optimiser": f"SGD, momentum {heads.MOMENTUM}, cosine, {sweep.epochs} epochs, batch {sweep.batch_size}",
        "selection": f"{HELD_OUT:.0%} of train, stratified; the chosen head is trained again on all of train",
        "seed": sweep.seed,
    }


def select(train: Features, classes: int, sweep: Sweep) -> list[tuple[Head, float]]:
    """Held-out accuracy (a share) of every candidate; sees nothing but the training set.

    Args:
        train: Labelled training features.
        classes: Number of classes.
        sweep: The candidates.
    """
    fit, held = splits.holdout(train.label.cpu(), HELD_OUT, sweep.seed)
    fit_set, held_set = train.pick(fit.to(train.label.device)), train.pick(held.to(train.label.device))
    scored = []
    for layers in ("last", "last four") if train.width < train.layers.shape[1] else ("last",):
        for batch_norm in (False, True):
            group = [Head(layers, batch_norm, lr, wd) for lr in sweep.lr for wd in sweep.weight_decay]
            trained = _train(fit_set, group, classes, sweep)
            share = heads.accuracy(trained, _view(held_set, layers), held_set.label)
            scored += list(zip(group, share.tolist(), strict=True))
    return scored


def at_edge(scored: list[tuple[Head, float]]) -> bool:
    """Whether only the smallest or largest learning rate reaches the best accuracy: the sweep may be too narrow."""
    rates = {head.lr for head, _ in scored}
    best = max(score for _, score in scored)
    return len(rates) > 2 and {head.lr for head, score in scored if score == best} <= {min(rates), max(rates)}


def _train(train: Features, group: list[Head], classes: int, sweep: Sweep) -> heads.Heads:
    """Train heads that share their view of the features."""
    view = _view(train, group[0].layers)
    lr = view.new_tensor([head.lr for head in group])
    weight_decay = view.new_tensor([head.weight_decay for head in group])
    return heads.train(
        view, train.label, classes, lr, weight_decay, group[0].batch_norm, sweep.epochs, sweep.batch_size, sweep.seed
    )


def _view(features: Features, layers: str) -> torch.Tensor:
    return features.last if layers == "last" else features.layers

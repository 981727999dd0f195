"""Attentive probing of a frozen encoder, as V-JEPA reports it (https://arxiv.org/abs/2404.08471).

The learning rate is selected on a tenth of the training set, held out class by class; the winner is trained once more
on the whole training set and then meets the test set, once. Tokens of a video's clips are attended to together.
"""

import math
import time
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.evals import result, splits, tokens
from jepa_pretrain.evals.attention import AttentiveProbe
from jepa_pretrain.evals.encoders import digest, resolve
from jepa_pretrain.evals.reader import DEFAULT, Reader
from jepa_pretrain.evals.tokens import Tokens

HELD_OUT = 0.1
WARMUP = 0.1  # of the steps


class Sweep(NamedTuple):
    """Which probes are tried and how they are trained."""

    epochs: int = 20
    batch_size: int = 64
    lr: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    weight_decay: float = 0.01
    seed: int = 0


def attentive(
    encoder: str,
    train: str,
    test: str,
    out: str | None = None,
    epochs: int = Sweep().epochs,
    step: int = Sweep().batch_size,
    lr: tuple[float, ...] = Sweep().lr,
    weight_decay: float = Sweep().weight_decay,
    seed: int = 0,
    memory: float = 8.0,
    reader: Reader = DEFAULT,
) -> None:
    """Attentive probe: how well do the frozen tokens classify through a learned query that attends to them?

    Args:
        encoder: An exported folder, `random:FOLDER` (the same architecture untrained, the baseline to compare with),
            `timm:NAME` or `random:NAME`.
        train: Training shards with labels: a path, URL, brace or glob pattern, or a folder.
        test: Test shards with labels.
        out: JSON file to write, or a folder to write it in; into RUN/eval for `report`.
        epochs: Passes over the training tokens.
        step: Samples per step of the probe.
        lr: Peak learning rates to try, of AdamW with a warm-up and a cosine to zero.
        weight_decay: Of AdamW.
        seed: Seed of the split, of the probes' weights and of the order.
        memory: GiB that the tokens of both sets may take; more is refused before anything is read.
        reader: How shards are read.
    """
    sweep = Sweep(epochs, step, tuple(lr), weight_decay, seed)
    _check(encoder, sweep)
    result.check_out(out)
    console, start = Console(), time.perf_counter()
    model = resolve(encoder, reader)
    state = digest(model)
    train_set, test_set = tokens.load(model, train, test, memory, reader, console)
    splits.check_labels(train_set.label, test_set.label)
    train_set, test_set = train_set.labelled(), test_set.labelled()
    read = time.perf_counter()
    found = probe(train_set, test_set, sweep, reader.place)
    outcome = result.summary("attentive", model, train_set.label, test_set.label, found.pop("hits")) | {
        "digest": state, "train": train, "test": test, "memory": memory, "reader": asdict(reader), **found,
        "seconds": {"tokens": round(read - start, 2), "probes": round(time.perf_counter() - read, 2)},
    }  # fmt: skip
    tried = ", ".join(f"{rate:g}: {share:.2f}" for rate, share in outcome["val_top1"].items())
    seconds = f"{outcome['seconds']['tokens']:.0f} s tokens, {outcome['seconds']['probes']:.0f} s probes"
    rows = [("learning rate", f"{outcome['chosen']['lr']:g}   (held out {tried})"), ("time", seconds)]
    result.show(outcome, console, rows)
    result.write(outcome, out, console)


def _check(encoder: str, sweep: Sweep) -> None:
    if encoder == "pixels":
        raise UserError("raw pixels are one token: there is nothing to attend to; try eval linear or eval knn")
    if not sweep.lr or min(sweep.lr) <= 0 or sweep.weight_decay < 0:
        raise UserError("lr needs at least one positive number, and weight_decay must not be negative")
    if sweep.epochs < 1 or sweep.batch_size < 1:
        raise UserError("epochs and step must be at least 1")


def probe(train: Tokens, test: Tokens, sweep: Sweep, device: torch.device) -> dict[str, Any]:
    """Select a learning rate on a part of the training set, train with it on all of it, test once.

    Args:
        train: Labelled training tokens.
        test: Labelled test tokens.
        sweep: The candidates.
        device: Where the probes train.

    Returns:
        `hits` on the test set, `chosen`, `val_top1` in percent by learning rate, and the settings.
    """
    fit, held = (train.pick(index) for index in splits.holdout(train.label, HELD_OUT, sweep.seed))
    classes = int(train.label.max()) + 1
    trained = fitted(fit, classes, sweep.lr, sweep, device)
    right = dict(zip(sweep.lr, (hits(one, held, sweep, device) for one in trained), strict=True))
    best = max(sweep.lr, key=right.__getitem__)  # the first of equals
    final = fitted(train, classes, (best,), sweep, device)[0]
    return {
        "hits": hits(final, test, sweep, device),
        "chosen": {"lr": best, "weight_decay": sweep.weight_decay, "heads": final.heads},
        "val_top1": {rate: 100 * count / len(held.label) for rate, count in right.items()},
        "optimiser": f"AdamW, {WARMUP:.0%} warm-up, cosine, {sweep.epochs} epochs, batch {sweep.batch_size}",
        "selection": f"{HELD_OUT:.0%} of train, stratified; the chosen probe is trained again on all of train",
        "seed": sweep.seed,
    }


def fitted(
    train: Tokens, classes: int, rates: tuple[float, ...], sweep: Sweep, device: torch.device
) -> list[AttentiveProbe]:
    """Probes trained side by side, one per learning rate, from equal weights and on equal batches.

    Args:
        train: Labelled tokens.
        classes: Number of classes.
        rates: Peak learning rates.
        sweep: Everything else.
        device: Where they train.
    """
    probes = nn.ModuleList(_fresh(train.tokens.shape[2], classes, sweep.seed) for _ in rates).to(device)
    groups = [{"params": one.parameters(), "lr": rate} for one, rate in zip(probes, rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=sweep.weight_decay)
    size = min(sweep.batch_size, len(train.label))
    per_epoch = len(train.label) // size
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, sweep.epochs * per_epoch))
    rng = torch.Generator().manual_seed(sweep.seed)
    for _ in range(sweep.epochs):
        order = torch.randperm(len(train.label), generator=rng)
        for index in order[: per_epoch * size].view(per_epoch, size):
            x, label = train.tokens[index].to(device).float(), train.label[index].to(device)
            optimizer.zero_grad()
            torch.stack([F.cross_entropy(one(x), label) for one in probes]).sum().backward()  # they share nothing
            optimizer.step()
            schedule.step()
    return list(probes)


def _fresh(width: int, classes: int, seed: int) -> AttentiveProbe:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AttentiveProbe(width, classes)


def _share(step: int, steps: int) -> float:
    """Of the peak learning rate."""
    warm = WARMUP * steps
    return (step + 1) / (warm + 1) if step < warm else 0.5 + 0.5 * math.cos(math.pi * (step - warm) / (steps - warm))


@torch.no_grad()
def hits(probe: AttentiveProbe, test: Tokens, sweep: Sweep, device: torch.device) -> int:
    """How many samples a probe classifies rightly."""
    right = 0
    for x, label in zip(test.tokens.split(sweep.batch_size), test.label.split(sweep.batch_size), strict=True):
        right += int((probe(x.to(device).float()).argmax(1).cpu() == label).sum())
    return right

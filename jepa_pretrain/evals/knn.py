"""Weighted k-NN classification with frozen features (Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.4).

Similarity is the cosine; a neighbour votes with weight exp(similarity / temperature), as in DINO. `k` is chosen on the
training set, each sample classified by the others; the test set is met once.
"""

import time
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from jepa_pretrain.contracts import UserError
from jepa_pretrain.evals import result, splits
from jepa_pretrain.evals.encoders import digest, resolve
from jepa_pretrain.evals.features import Features, load
from jepa_pretrain.evals.neighbours import nearest, vote
from jepa_pretrain.evals.reader import DEFAULT, Reader

CHUNK = 2**26  # similarities at a time, 256 MiB
QUERIES = 5000  # training samples that choose k


def knn(
    encoder: str,
    train: str,
    test: str,
    out: str | None = None,
    k: tuple[int, ...] = (1, 5, 10, 20, 200),
    temperature: float = 0.07,
    all_layers: bool = False,
    seed: int = 0,
    reader: Reader = DEFAULT,
) -> None:
    """k-NN: which class do the nearest training pictures have in the space of frozen features?

    Args:
        encoder: An exported folder, `random:FOLDER` (the same architecture untrained, the baseline to compare with),
            `timm:NAME`, `random:NAME`, or `pixels`.
        train: Training shards with labels: a path, URL, brace or glob pattern, or a folder.
        test: Test shards with labels.
        out: JSON file to write, or a folder to write it in; into RUN/eval for `report`.
        k: Numbers of neighbours to try; the best on the training set is used.
        temperature: Of the votes' weights.
        all_layers: Compare the last four layers side by side instead of the last alone.
        seed: Which training samples choose k, where there are more than 5,000.
        reader: How shards are read.
    """
    if not k or min(k) < 1 or temperature <= 0:
        raise UserError("k needs at least one number of 1 or more, and the temperature must be positive")
    result.check_out(out)
    console, start = Console(), time.perf_counter()
    model = resolve(encoder, reader)
    state = digest(model)
    train_set, test_set = load(model, train, test, reader, console)
    splits.check_labels(train_set.label, test_set.label)
    train_set, test_set = train_set.labelled().to(reader.place), test_set.labelled().to(reader.place)
    read = time.perf_counter()
    found = classify(train_set, test_set, tuple(k), temperature, all_layers, seed)
    outcome = result.summary("knn", model, train_set.label, test_set.label, found.pop("hits")) | {
        "digest": state, "train": train, "test": test, "reader": asdict(reader), **found,
        "seconds": {"features": round(read - start, 2), "neighbours": round(time.perf_counter() - read, 2)},
    }  # fmt: skip
    tried = ", ".join(f"{n}: {share:.2f}" for n, share in outcome["train_top1"].items())
    seconds = f"{outcome['seconds']['features']:.0f} s features, {outcome['seconds']['neighbours']:.0f} s neighbours"
    result.show(outcome, console, [("k", f"{outcome['k']}   (on train {tried})"), ("time", seconds)])
    result.write(outcome, out, console)


def classify(
    train: Features, test: Features, k: tuple[int, ...], temperature: float, all_layers: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Choose k on the training set, then classify the test set.

    Args:
        train: Labelled training features.
        test: Labelled test features.
        k: Numbers of neighbours to try; those that exceed the training set are left out.
        temperature: Of the votes' weights.
        all_layers: Compare all layers side by side.
        seed: Which training samples choose k.

    Returns:
        `hits` on the test set, the chosen `k`, `train_top1` in percent by k, and the settings.
    """
    possible = [n for n in dict.fromkeys(k) if n < len(train.label)]
    if not possible:
        raise UserError(f"every k of {k} exceeds the {len(train.label)} training pictures; give a smaller k")
    bank = F.normalize(train.layers if all_layers else train.last, dim=1)  # (n, D)
    order = torch.randperm(len(bank), generator=torch.Generator().manual_seed(seed))[:QUERIES].to(bank.device)
    right = votes(bank[order], train.label[order], bank, train.label, possible, temperature, itself=order)
    best = max(possible, key=lambda n: right[n])  # the first of equals
    query = test.layers if all_layers else test.last
    hits = votes(query, test.label, bank, train.label, [best], temperature)[best]
    return {
        "hits": hits,
        "k": best,
        "train_top1": {n: 100 * right[n] / len(order) for n in possible},
        "layers": "last four" if all_layers else "last",
        "temperature": temperature,
        "selection": f"leave-one-out on {len(order)} training samples",
        "seed": seed,
    }


def votes(
    query: Tensor,
    label: Tensor,
    bank: Tensor,
    values: Tensor,
    ks: list[int],
    temperature: float,
    itself: Tensor | None = None,
) -> dict[int, int]:
    """How many queries the weighted vote classifies rightly, for each number of neighbours.

    Args:
        query: `(Q, D)`.
        label: `(Q,)` their true classes.
        bank: `(n, D)`, of unit length.
        values: `(n,)` classes of the bank.
        ks: Numbers of neighbours, below n.
        temperature: Of the weights.
        itself: `(Q,)` index of each query in the bank, so that it does not vote for itself; None where it is absent.
    """
    classes, right = int(values.max()) + 1, dict.fromkeys(ks, 0)
    chunk = max(1, CHUNK // len(bank))
    for start in range(0, len(query), chunk):
        part = slice(start, start + chunk)
        own = None if itself is None else itself[part]
        similarity, index = nearest(query[part], bank, max(ks), own)  # (B, k)
        for k in ks:
            scores = vote(similarity[:, :k], values[index[:, :k]], classes, temperature)
            right[k] += int((scores.argmax(dim=1) == label[part]).sum())
    return right

"""Nearest neighbours by cosine, and their weighted vote (Wu et al. 2018, https://arxiv.org/abs/1805.01978)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def nearest(query: Tensor, bank: Tensor, k: int, itself: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k most similar features of a bank, most similar first.

    Args:
        query: `(Q, D)`, of any length.
        bank: `(n, D)`, of unit length.
        k: How many, at most n (n - 1 with `itself`).
        itself: `(Q,)` index of each query in the bank, which is then left out; None where it is absent.

    Returns:
        Cosine similarities and indices, each `(Q, k)`.
    """
    similarity = F.normalize(query, dim=1) @ bank.T  # (Q, n)
    if itself is not None:
        similarity.scatter_(1, itself[:, None], -torch.inf)
    return similarity.topk(k, dim=1)


def vote(similarity: Tensor, label: Tensor, classes: int, temperature: float) -> Tensor:
    """Class scores; a neighbour weighs exp(similarity / temperature).

    Args:
        similarity: `(Q, k)`, most similar first.
        label: `(Q, k)` classes of the neighbours.
        classes: Number of classes C.
        temperature: Of the weights.

    Returns:
        `(Q, C)`, not normalised.
    """
    weight = ((similarity - similarity[:, :1]) / temperature).exp()  # relative to the nearest: no overflow
    return weight.new_zeros(len(weight), classes).scatter_add_(1, label, weight)

"""Nearest neighbours of some pictures: what the encoder takes for similar."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_pretrain.evals.neighbours import nearest


class Row(NamedTuple):
    """A picture and its neighbours, by their place in the pool."""

    query: int
    neighbours: list[int]  # most similar first


def find(features: Tensor, label: Tensor, rows: int = 8, k: int = 5) -> list[Row]:
    """Neighbours of some pictures among all others of the pool.

    Args:
        features: `(n, D)` pooled features.
        label: `(n,)`; queries are of different classes as far as there are labels.
        rows: How many queries.
        k: How many neighbours of each.

    Returns:
        At most `rows` rows; none where the pool is too small.
    """
    if len(features) <= k:
        return []
    query = torch.tensor(_different(label.tolist(), rows))
    bank = F.normalize(features.float(), dim=1)
    index = nearest(bank[query], bank, k, itself=query)[1]
    return [Row(one, found) for one, found in zip(query.tolist(), index.tolist(), strict=True)]


def _different(label: list[int], rows: int) -> list[int]:
    """The first picture of each class, then the first of what is left."""
    first = {c: i for i, c in reversed(list(enumerate(label))) if c >= 0}
    chosen = sorted(first.values())[:rows]
    rest = [i for i in range(len(label)) if i not in chosen]
    return chosen + rest[: max(0, min(rows, len(label)) - len(chosen))]

"""The weighted vote of nearest neighbours (Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def weighted_vote(
    query: Tensor, keys: Tensor, values: Tensor, classes: int, k: int, temperature: float = 0.07
) -> Tensor:
    """Class scores from the k most similar keys, each weighing exp(cosine similarity / temperature).

    Args:
        query: `(B, D)` features, of any length.
        keys: `(S, D)` features of unit length.
        values: `(S,)` their classes.
        classes: number of classes.
        k: neighbours that vote, at most S.
        temperature: of the weights.

    Returns:
        `(B, classes)` scores, not normalised.
    """
    similarity, index = (F.normalize(query, dim=1) @ keys.T).topk(k, dim=1)  # (B, k)
    weight = ((similarity - similarity[:, :1]) / temperature).exp()  # relative to the nearest: no overflow
    return torch.zeros(len(query), classes, device=query.device).scatter_add_(1, values[index], weight)

"""How many dimensions a set of features really uses: numbers that warn of collapse, and no score of quality.

RankMe: Garrido et al. 2023, https://arxiv.org/abs/2210.02885, equations 1 and 2.
Effective rank: Roy and Vetterli 2007, the same entropy taken over the centred features.
"""

import torch
from torch import Tensor


def rankme(features: Tensor, eps: float = 1e-7) -> Tensor:
    """RankMe: the exponential of the entropy of the normalised singular values.

    Args:
        features: `(B, D)`, used as they are, not centred, as in the paper.
        eps: Added to each normalised singular value, as in the paper.

    Returns:
        A scalar between 1 and min(B, D); 1 where all features are zero, NaN where one is not finite.
    """
    features = features.detach().float()
    if not features.isfinite().all():  # the decomposition would raise, and a monitor must not stop a run
        return features.new_tensor(torch.nan)
    singular = torch.linalg.svdvals(features)
    p = singular / singular.sum().clamp_min(torch.finfo(singular.dtype).tiny) + eps
    return torch.exp(-(p * p.log()).sum()).clamp_min(1.0)


def effective_rank(features: Tensor) -> Tensor:
    """RankMe of the centred features: a shared offset, which no probe can use, does not count.

    Args:
        features: `(B, D)`.

    Returns:
        A scalar between 1 and min(B - 1, D); 1 where all features are equal, NaN where one is not finite.
    """
    features = features.detach().float()
    return rankme(features - features.mean(dim=0))


def dimension_std(features: Tensor) -> Tensor:
    """Standard deviation of each dimension over the batch (unbiased); zeros mean collapse.

    Args:
        features: `(B, D)` with at least two rows.

    Returns:
        `(D,)`.
    """
    return features.detach().float().std(dim=0)

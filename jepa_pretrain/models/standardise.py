"""Frozen features on one scale, so that what is faint counts as much as what is glaring.

Features of untrained convolutions differ up to forty times in their deviations over a recording (TwoRoom with random
doors), and a projector follows the large ones first.
"""

import torch
from torch import Tensor, nn

FLOOR = 0.1  # least deviation, as a share of the average one: what hardly varies is not blown up


class Standardise(nn.Module):
    """Features minus their mean, over their deviation, both measured once; it changes nothing before `fit`.

    Args:
        width: features (F).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Measures `(S, F)`."""
        deviation = features.std(dim=0)
        self.mean.copy_(features.mean(dim=0))
        self.std.copy_(deviation.clamp_min(FLOOR * deviation.mean()))

    def forward(self, features: Tensor) -> Tensor:
        """`(B, F)` -> the same shape."""
        return (features - self.mean) / self.std

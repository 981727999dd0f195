"""The loss on visible tokens (V-JEPA 2.1, Mur-Labadia et al. 2026, https://arxiv.org/abs/2603.14482).

loss = weight(progress) * mean over visible tokens i of  |predicted_i - target_i| / sqrt(d_i)

d_i is how far token i lies, in tokens through time, rows and columns, from the nearest token that is predicted.
"""

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import Grid, Masks
from jepa_pretrain.schedules import Schedule


def nearest_target(masks: Masks, grid: Grid) -> Tensor:
    """Distance of every context token from the nearest target token, in tokens: `(B, K)`, one or more."""
    seen, hidden = (torch.stack(_coordinates(index, grid), -1) for index in (masks.context, masks.targets.flatten(1)))
    return torch.cdist(seen.float(), hidden.float()).amin(dim=2)


def _coordinates(index: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """Token indices -> step, row and column."""
    return index // (grid.h * grid.w), index // grid.w % grid.h, index % grid.w


class DenseLoss(nn.Module):
    """L1 distance of predicted and target tokens where they are visible, the more the nearer a hidden token is.

    Args:
        weight: weight beside the loss on hidden tokens, over progress; in the official code a `Ramp`, nothing until
            15,000 steps and full from 30,000 on.
        by_distance: divide by the square root of the distance to the nearest hidden token; else all count alike.
    """

    def __init__(self, weight: Schedule, by_distance: bool = True) -> None:
        super().__init__()
        self.weight, self.by_distance = weight, by_distance

    def forward(self, predicted: Tensor, target: Tensor, masks: Masks, grid: Grid) -> Tensor:
        """Unweighted loss `()` of `(B, K, D)` predicted and target tokens, at the places `masks.context`."""
        error = (predicted - target).abs().mean(dim=2)  # (B, K)
        if self.by_distance:
            error = error / nearest_target(masks, grid).sqrt()
        return error.mean()

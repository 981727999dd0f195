"""Whether a critic may be believed: what it predicted against what then happened."""

from typing import NamedTuple

import torch
from torch import Tensor

from jepa_pretrain.contracts import UserError


class Calibration(NamedTuple):
    """Predictions sorted into bins of equal counts, lowest first."""

    predicted: Tensor  # (bins,) mean of the predictions
    realised: Tensor  # (bins,) mean of what happened
    count: Tensor  # (bins,)
    error: float  # mean distance of the two, weighted by count
    correlation: float  # of prediction and outcome, over all samples

    def table(self) -> str:
        """One line for each bin, in plain text."""
        rows = zip(self.predicted.tolist(), self.realised.tolist(), self.count.tolist(), strict=True)
        lines = [f"{p:12.3f} {r:12.3f} {n:8d}" for p, r, n in rows]
        return "\n".join([f"{'predicted':>12} {'realised':>12} {'count':>8}", *lines])


def calibration(predicted: Tensor, realised: Tensor, bins: int = 10) -> Calibration:
    """Compare predictions with outcomes.

    Args:
        predicted: `(M,)`.
        realised: `(M,)`.
        bins: at most; no bin is empty.

    Raises:
        UserError: nothing to compare, or another number of outcomes than predictions.
    """
    if predicted.shape != realised.shape or predicted.dim() != 1 or not len(predicted):
        raise UserError(
            f"calibration needs as many outcomes (M,) as predictions, "
            f"found {tuple(predicted.shape)} and {tuple(realised.shape)}"
        )
    order = predicted.argsort()
    parts = [one for one in order.tensor_split(min(bins, len(order))) if len(one)]
    means = torch.stack([torch.stack([predicted[one].mean(), realised[one].mean()]) for one in parts])  # (bins, 2)
    count = torch.tensor([len(one) for one in parts])
    error = ((means[:, 0] - means[:, 1]).abs().cpu() * count).sum() / count.sum()
    both = torch.stack([predicted, realised]).double()
    correlation = torch.corrcoef(both)[0, 1].item() if len(order) > 1 else float("nan")
    return Calibration(means[:, 0], means[:, 1], count, error.item(), correlation)


def coverage(quantiles: Tensor, realised: Tensor) -> Tensor:
    """How often the outcome lies at or below each predicted quantile, `(Q,)`; ideally the quantile's level.

    Args:
        quantiles: `(M, Q)`.
        realised: `(M,)`.
    """
    return (realised[:, None] <= quantiles).float().mean(0)

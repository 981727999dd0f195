"""Ridge regression in closed form, and how well it predicts.

    W = argmin  mean |x W - y|^2 + penalty |W|^2,   x centred features of mean squared norm 1, y centred

so that one range of penalties suits every encoder.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from jepa_pretrain.evals.heads import Inputs, inputs

RESAMPLES = 1000
QUANTILES = (0.025, 0.975)


class Ridge(NamedTuple):
    """A linear map of features, for one penalty."""

    inputs: Inputs
    weight: Tensor  # (D, K)
    mean: Tensor  # (K,)

    def __call__(self, features: Tensor) -> Tensor:
        """`(n, D)` -> `(n, K)`."""
        return self.inputs(features.double()) @ self.weight + self.mean


def solve(features: Tensor, target: Tensor, penalties: tuple[float, ...]) -> list[Ridge]:
    """The solution for each penalty, by way of the smaller of the two Gram matrices.

    Args:
        features: `(n, D)`.
        target: `(n, K)`.
        penalties: Positive numbers.
    """
    features, target = features.double(), target.double()
    x_of, mean = inputs(features, batch_norm=False), target.mean(dim=0)
    x, y, n = x_of(features), target - mean, len(features)
    wide = x.shape[1] > n
    gram = (x @ x.T if wide else x.T @ x) / n
    right = y / n if wide else x.T @ y / n
    found = []
    for penalty in penalties:
        factor = torch.linalg.cholesky(gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
        solved = torch.cholesky_solve(right, factor)
        found.append(Ridge(x_of, x.T @ solved if wide else solved, mean))
    return found


def r2(predicted: Tensor, target: Tensor) -> tuple[float, list[float]]:
    """Share of the variance that is predicted, the mean over dimensions, with its 95 % bootstrap interval over rows.

    Args:
        predicted: `(n, K)`.
        target: `(n, K)`, of which every column varies.

    Returns:
        R^2, 1 at best and negative where the mean would do better; and its interval.
    """
    error, target = (predicted - target).double() ** 2, target.double() - target.double().mean(dim=0)
    rng = torch.Generator().manual_seed(0)
    times = torch.randint(0, len(error), (RESAMPLES, len(error)), generator=rng)
    weight = torch.zeros(RESAMPLES, len(error), dtype=torch.float64)
    weight.scatter_add_(1, times, torch.ones_like(weight)).div_(len(error))  # (R, n), how often a row is drawn
    weight = torch.cat([torch.full_like(weight[:1], 1 / len(error)), weight]).to(error.device)
    variance = weight @ target**2 - (weight @ target) ** 2  # (R, K)
    scores = (1 - weight @ error / variance.clamp_min(1e-24)).mean(dim=1)
    return scores[0].item(), scores[1:].quantile(scores.new_tensor(QUANTILES)).tolist()

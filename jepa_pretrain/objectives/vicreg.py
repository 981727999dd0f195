"""Variance, invariance and covariance (Bardes, Ponce and LeCun 2022, https://arxiv.org/abs/2105.04906).

All in fp32 at least, whatever the autocast, with statistics over the joined batch of all ranks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_pretrain import distributed
from jepa_pretrain.contracts import UserError
from jepa_pretrain.ops import exact


def variance(z: Tensor, target: float = 1.0, eps: float = 1e-4) -> Tensor:
    """Hinge that keeps every dimension's deviation above `target`, equation 1; `(B, D)` -> scalar."""
    return F.relu(target - (z.var(dim=0) + eps).sqrt()).mean()


def covariance(z: Tensor) -> Tensor:
    """Sum of the squared off-diagonal covariances over D, equations 3 and 4; `(B, D)` -> scalar."""
    z = z - z.mean(dim=0)
    c = z.T @ z / (len(z) - 1)  # (D, D)
    return (c.square().sum() - c.diagonal().square().sum()) / z.shape[1]


def _joined(z: Tensor) -> Tensor:
    """Rows of all ranks in fp32; refuses a batch that has no variance."""
    z = distributed.gather(exact(z))
    if len(z) < 2:
        raise UserError("variance and covariance need at least 2 samples in the batch of all ranks, got 1")
    return z


class VICRegLoss(nn.Module):
    """VICReg's loss of two or more views, averaged over the pairs.

    As in the official code, whose results are the published ones, the variance term is the *mean* over the views
    where the paper's equation 6 sums it; the covariance term is summed.

    Args:
        invariance_weight: weight lambda of the squared distance of the views.
        variance_weight: weight mu of the variance hinge.
        covariance_weight: weight nu of the covariance penalty.
    """

    def __init__(
        self, invariance_weight: float = 25.0, variance_weight: float = 25.0, covariance_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.weights = (invariance_weight, variance_weight, covariance_weight)

    def forward(self, views: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings `V x (B, D)` of this rank -> loss and its unweighted terms."""
        with torch.autocast(views[0].device.type, enabled=False):
            mean_view = torch.stack([exact(z) for z in views])  # (V, B, D)
            pairs = len(views) * (len(views) - 1) / 2
            spread = (mean_view - mean_view.mean(0)).square().sum(0) * len(views)  # sum over pairs of squares
            invariance = spread.mean() / pairs
            joined = [_joined(z) for z in views]
            std = sum(variance(z) for z in joined) / len(joined)
            cov = sum(covariance(z) for z in joined) * 2 / len(joined)
        w = self.weights
        terms = {"invariance": invariance.detach(), "variance": std.detach(), "covariance": cov.detach()}
        return w[0] * invariance + w[1] * std + w[2] * cov, terms


class VarianceCovarianceLoss(nn.Module):
    """VICReg's two anti-collapse terms alone, for features that another loss trains (C-JEPA, arXiv 2410.19560).

    Args:
        variance_weight: weight of the variance hinge.
        covariance_weight: weight of the covariance penalty.
    """

    def __init__(self, variance_weight: float = 1.0, covariance_weight: float = 0.04) -> None:
        super().__init__()
        self.weights = (variance_weight, covariance_weight)

    def forward(self, views: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Features `V x (B, D)` of this rank -> loss and its unweighted terms."""
        with torch.autocast(views[0].device.type, enabled=False):
            joined = [_joined(z) for z in views]
            std = sum(variance(z) for z in joined) / len(joined)
            cov = sum(covariance(z) for z in joined) / len(joined)
        terms = {"variance": std.detach(), "covariance": cov.detach()}
        return self.weights[0] * std + self.weights[1] * cov, terms

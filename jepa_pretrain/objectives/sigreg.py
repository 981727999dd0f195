"""Sketched isotropic Gaussian regularisation (Balestriero and LeCun 2025, https://arxiv.org/abs/2511.08544).

Embeddings are to be a standard normal. They are so when each projection on a unit direction is; how far a projection is
from it is the statistic of Epps and Pulley (1983), the weighted distance of the characteristic functions:

    T = n * integral |phi_n(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt,    phi_n(t) = mean_j exp(i t x_j)

in the trapezoid rule over [-5, 5]; the loss is its mean over random directions, which are drawn anew at every call.
"""

import torch
from torch import Tensor, nn

from jepa_pretrain import distributed


def epps_pulley(projected: Tensor, points: int = 17, limit: float = 5.0) -> Tensor:
    """The statistic of every column, with the sample of all ranks: `(B, S)` float32 -> `(S,)`.

    Args:
        projected: numbers that should be standard normal, one sample per column.
        points: points of the trapezoid rule, odd.
        limit: where the integral ends on both sides.
    """
    # the integrand is even: half of the points with twice the weight are the same sum
    t = torch.linspace(0.0, limit, points // 2 + 1, device=projected.device)  # (P,)
    angle = projected.unsqueeze(-1) * t  # (B, S, P)
    own = torch.stack([angle.cos().mean(0), angle.sin().mean(0)])  # (2, S, P)
    real, imaginary = distributed.gather(own.unsqueeze(0)).mean(0)
    gauss = torch.exp(-t.square() / 2)
    distance = (real - gauss).square() + imaginary.square()  # (S, P)
    samples = len(projected) * distributed.world_size()
    return samples * 2 * torch.trapezoid(distance * gauss, t, dim=-1)


class SIGReg(nn.Module):
    """Distance of embeddings from a standard normal, along random directions.

    The statistic grows with the number of samples, as published: a weight belongs to a batch size.

    Args:
        directions: random directions per call.
        points: points of the trapezoid rule, odd.
    """

    def __init__(self, directions: int = 1024, points: int = 17) -> None:
        super().__init__()
        self.directions, self.points = directions, points

    def forward(self, views: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings `V x (B, D)` of this rank -> loss, averaged over the views, and its unweighted term."""
        with torch.autocast(views[0].device.type, enabled=False):
            drawn = torch.randn(views[0].shape[1], self.directions, device=views[0].device)
            unit = torch.nn.functional.normalize(distributed.first(drawn), dim=0)  # (D, S)
            loss = torch.stack([epps_pulley(z.float() @ unit, self.points).mean() for z in views]).mean()
        return loss, {"sigreg": loss.detach()}

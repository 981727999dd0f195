"""States that change little from moment to moment, beside what keeps them from collapsing (PLDM, arXiv 2502.14819).

    loss = objective(s) + weight * mean_t |s_{t+1} - s_t|^2

Then what lies close together in time lies close together in the latent space, and distances there follow the way there
is to go rather than the air line; planners depend on it.
"""

import torch
from torch import Tensor, nn


class Slow(nn.Module):
    """Adds the change from moment to moment to an anti-collapse objective.

    Args:
        objective: such as `VarianceCovarianceLoss`.
        weight: of the change.
    """

    def __init__(self, objective: nn.Module, weight: float = 12.0) -> None:
        super().__init__()
        self.objective, self.weight = objective, weight

    def forward(self, views: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings of the T moments of B clips, `T x (B, D)`, in the clips' order -> loss and its terms."""
        loss, terms = self.objective(views)
        moments = torch.stack(views)  # (T, B, D)
        change = (moments[1:] - moments[:-1]).square().mean()
        return loss + self.weight * change, terms | {"change": change.detach()}

"""An objective on what changes in a clip, so that what stands still does not count.

What stays the same for a whole clip (background, colours) is the easiest thing to predict. An anti-collapse term on
each moment by itself is content with it, and the states then hold the scenery and no motion (Sobal et al. 2022,
https://arxiv.org/abs/2211.10831). Here every clip's mean over its moments is taken off first:

    c_t = (s_t - mean_t s_t) * sqrt(T / (T - 1)),        loss = objective(c_t)
"""

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError


class Changes(nn.Module):
    """Applies an anti-collapse objective to the deviations from each clip's mean.

    Args:
        objective: such as `SIGReg` or `VarianceCovarianceLoss`.
        joined: it sees all moments as one sample of T B rows; else each moment by itself, so that what changes alike
            in all clips, such as the time since their beginning, does not count either.
    """

    def __init__(self, objective: nn.Module, joined: bool = True) -> None:
        super().__init__()
        self.objective, self.joined = objective, joined

    def forward(self, views: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings of the T moments of B clips, `T x (B, D)`, in the clips' order -> loss and its terms."""
        if len(views) < 2:
            raise UserError("what changes in a clip needs two moments or more")
        moments = torch.stack(views)  # (T, B, D)
        changes = (moments - moments.mean(0)) * (len(moments) / (len(moments) - 1)) ** 0.5
        return self.objective([changes.flatten(0, 1)] if self.joined else list(changes))


class Both(nn.Module):
    """The sum of two objectives on the same embeddings, such as one on each moment and one on changes.

    What stands still for a whole clip may matter too: the first keeps it, the second keeps it from being all there is.

    Args:
        first: an anti-collapse objective.
        second: another; its terms are named `changes_...`.
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, views: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """`T x (B, D)` -> the summed loss, and the terms of both."""
        loss, terms = self.first(views)
        other, more = self.second(views)
        return loss + other, terms | {f"changes_{name}": term for name, term in more.items()}

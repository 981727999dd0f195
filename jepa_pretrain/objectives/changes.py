"""An objective on what changes in a clip, so that what stands still does not count.

What stays the same for a whole clip (background, colours) is the easiest thing to predict. An anti-collapse term on
each moment by itself is content with it, and the states then hold the scenery and no motion (Sobal et al. 2022,
https://arxiv.org/abs/2211.10831). Here every clip's mean over its moments is taken off first:

    c_t = (s_t - mean_t s_t) * sqrt(T / (T - 1)),        loss = objective(all c_t as one sample)
"""

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError


class Changes(nn.Module):
    """Applies an anti-collapse objective to the deviations from each clip's mean.

    Args:
        objective: such as `SIGReg` or `VarianceCovarianceLoss`; it sees one sample of T B rows.
    """

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, views: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings of the T moments of B clips, `T x (B, D)`, in the clips' order -> loss and its terms."""
        if len(views) < 2:
            raise UserError("what changes in a clip needs two moments or more")
        moments = torch.stack(views)  # (T, B, D)
        changes = (moments - moments.mean(0)) * (len(moments) / (len(moments) - 1)) ** 0.5
        return self.objective([changes.flatten(0, 1)])

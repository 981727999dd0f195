"""Actions that were really taken: what a search over macro-actions keeps near.

A macro-action is a code of several actions, and most codes are of nothing that the level below ever saw.
Unconstrained search finds just those (Hi-LeWM, arXiv 2607.12547), so it is bounded by the spread of the recorded ones,
begins in their middle, and may pay for every deviation away from the nearest (the term `recorded` of `agent/cost.py`).
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from jepa_pretrain.agent.world_model import Continuous
from jepa_pretrain.contracts import UserError

FLAT = 1e-6  # a number that never changes has this deviation


@dataclass(frozen=True)
class Recorded:
    """Recorded (macro-)actions, `(R, A)`; their mean and spread say where to search."""

    actions: Tensor

    @classmethod
    def of(cls, actions: Tensor, most: int = 256) -> Self:
        """From recorded actions.

        Args:
            actions: `(..., A)`.
            most: no more than so many are kept, evenly spaced; each plan is compared with all of them.

        Raises:
            UserError: fewer than two, or values that are not finite.
        """
        flat = actions.detach().flatten(0, -2)
        if len(flat) < 2 or not flat.isfinite().all():
            raise UserError(f"two finite recorded actions or more are needed, found {tuple(actions.shape)}")
        return cls(flat[torch.linspace(0, len(flat) - 1, min(most, len(flat)), device=flat.device).long()])

    @property
    def mean(self) -> Tensor:
        """`(A,)`."""
        return self.actions.mean(0)

    @property
    def std(self) -> Tensor:
        """`(A,)`."""
        return self.actions.std(0).clamp_min(FLAT)

    def space(self, reach: float = 2.0) -> Continuous:
        """Actions within `reach` deviations of the mean, which is where planners begin."""
        return Continuous(self.mean - reach * self.std, self.mean + reach * self.std)

    def distance(self, plan: Tensor) -> Tensor:
        """To the nearest recorded action, squared, in deviations, mean over the numbers: `(B, L, A)` -> `(B, L)`."""
        std = self.std.to(plan)
        off = torch.cdist(plan / std, self.actions.to(plan) / std, compute_mode="donot_use_mm_for_euclid_dist")
        return off.amin(2).square() / plan.shape[-1]

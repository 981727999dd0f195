"""A task of several stages: when the present sub-goal is reached, the next one is pursued."""

import torch
from torch import Tensor

from jepa_pretrain.agent.readout import Readout
from jepa_pretrain.contracts import UserError


class Stages:
    """Sub-goals in order, and where each environment stands among them.

    Args:
        goals: `(G, N, D)`, the same for all environments.
        near: how near counts as there: units of the readout, or without one the squared distance of states.
        readout: measures distances in the units of the recordings.

    Raises:
        UserError: no goal, or nothing that counts as near.
    """

    def __init__(self, goals: Tensor, near: float, readout: Readout | None = None) -> None:
        if goals.dim() != 3 or not len(goals) or not near > 0:
            raise UserError(f"stages need goals (G, N, D) and a positive near, found {tuple(goals.shape)} and {near}")
        self.goals, self.near, self.readout = goals, near, readout
        self.at = torch.zeros(0, dtype=torch.int64)  # (E,) index of the present sub-goal

    def begin(self, environments: int) -> None:
        """All at the first sub-goal."""
        self.at = torch.zeros(environments, dtype=torch.int64)

    def follow(self, state: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The present goals of some environments, after a look at where they are.

        Args:
            state: `(B, N, D)`.
            rows: which environments, `(B,)`.

        Returns:
            Goals `(B, N, D)`, and which of the rows have just turned to another one, `(B,)` bool.
        """
        there = self._distance(state, self.goals[self.at[rows]]) < self.near
        turned = there & (self.at[rows] < len(self.goals) - 1)
        self.at[rows] += turned.long()
        return self.goals[self.at[rows]], turned

    def _distance(self, state: Tensor, goal: Tensor) -> Tensor:
        if self.readout is None:
            return (state - goal).square().mean((1, 2))
        return (self.readout.read(state) - self.readout.read(goal)).norm(dim=1)

"""Worlds whose dynamics are given, so that the best plan is known."""

import torch
from torch import Tensor

from jepa_pretrain.agent.world_model import Continuous, Discrete, unroll


class Known:
    """What all of them have: a pooled state that is the picture's first pixels, and steps that are repeated."""

    grid_tokens = 1
    block = frames = 1

    def __init__(self, width: int, action: Continuous | Discrete) -> None:
        self.width, self.action = width, action

    def encode(self, frames: Tensor) -> Tensor:
        return frames.flatten(1)[:, None, : self.width].float()

    def rollout(self, state: Tensor, plan: Tensor, z: Tensor | None = None) -> Tensor:
        return unroll(self, state, plan, z)


class Linear(Known):
    """Two double integrators: s = (position, velocity) of two axes, the action accelerates."""

    def __init__(self) -> None:
        super().__init__(4, Continuous(torch.full((2,), -4.0), torch.full((2,), 4.0)))
        self.a = torch.tensor([[1.0, 0, 0.5, 0], [0, 1, 0, 0.5], [0, 0, 0.9, 0], [0, 0, 0, 0.9]])
        self.b = torch.tensor([[0.1, 0], [0, 0.1], [0.5, 0], [0, 0.5]])

    def step(self, state: Tensor, action: Tensor, z: Tensor | None = None) -> Tensor:
        return state @ self.a.T + (action @ self.b.T)[:, None]

    def riccati(self, state: Tensor, length: int, goal_weight: float, effort_weight: float) -> tuple[Tensor, Tensor]:
        """The best plan towards 0 and its cost, from states `(B, 4)`: `(B, L, 2)`, `(B,)`; in double precision."""
        a, b, x = self.a.double(), self.b.double(), state.double()
        q, r = goal_weight / 4 * torch.eye(4).double(), effort_weight / 2 * torch.eye(2).double()
        later, gains = torch.zeros(4, 4).double(), []
        for _ in range(length):  # from the last step to the first; each step pays for the state it leads to
            value = q + later
            gains.insert(0, torch.linalg.solve(r + b.T @ value @ b, b.T @ value @ a))
            later = a.T @ value @ (a - b @ gains[0])
        actions = []
        for gain in gains:
            actions.append(-x @ gain.T)
            x = x @ a.T + actions[-1] @ b.T
        return torch.stack(actions, 1).float(), (state.double() @ later * state.double()).sum(1).float()


class Floor(Known):
    """A grid of 5 x 5 cells; five choices: stay, or a step that walls and the border stop. s = (row, column)."""

    MOVES = torch.tensor([[0.0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])
    WALLS = torch.tensor([[1.0, 1], [1, 2], [1, 3], [2, 3], [3, 1]])

    def __init__(self) -> None:
        super().__init__(2, Discrete.one_hot(5))

    def step(self, state: Tensor, action: Tensor, z: Tensor | None = None) -> Tensor:
        after = (state + (action @ self.MOVES)[:, None]).clamp(0, 4)
        blocked = (after == self.WALLS).all(2).any(1)  # (B, 1, 2) against (5, 2)
        return torch.where(blocked[:, None, None], state, after)


class Maze(Known):
    """The unit square, with a wall from the left to x = .75, y from .3 to .7: a U. s = (x, y), a = (dx, dy)."""

    STEP = 0.15  # less than the wall is thick

    def __init__(self) -> None:
        super().__init__(2, Continuous(torch.full((2,), -self.STEP), torch.full((2,), self.STEP)))

    def step(self, state: Tensor, action: Tensor, z: Tensor | None = None) -> Tensor:
        x, y = state[:, 0].unbind(1)
        u, v = (state[:, 0] + action).clamp(0, 1).unbind(1)
        u = torch.where(self.inside(u, y), x, u)  # one axis after the other, so that one slides along the wall
        v = torch.where(self.inside(u, v), y, v)
        return torch.stack([u, v], 1)[:, None]

    @staticmethod
    def inside(x: Tensor, y: Tensor) -> Tensor:
        return (x < 0.75) & (y > 0.3) & (y < 0.7)

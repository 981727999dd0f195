"""How far the world parts from what was predicted, measured by how far it usually does on recordings."""

from dataclasses import replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import WorldModel
from jepa_pretrain.contracts import UserError

LEVELS = 101  # quantiles that are kept, from 0 to 100 %
CHUNK = 4096  # transitions predicted at a time
GOALS = 2048  # recorded states whose cost is asked, each for a goal a few steps ahead in the same episode


class Transitions(NamedTuple):
    """Steps of the model that really happened."""

    state: Tensor  # (M, N, D)
    action: Tensor  # (M, A)
    after: Tensor  # (M, N, D)


class Usual(NamedTuple):
    """What is usual on recordings, so that thresholds have no units."""

    errors: Tensor  # (101,) quantiles of the squared error of a predicted state, mean over its numbers
    step: Tensor  # () by how much a step of the model changes the cost of a state, at the median
    distance: Tensor  # () squared distance of states a step of the model apart, mean over their numbers, at the median

    @classmethod
    def of(cls, model: WorldModel, cost: Cost, task: Task, known: Transitions) -> Self:
        """Measured on recordings; better on such as the model was not trained on.

        Args:
            model: predicts.
            cost: judges.
            task: weights; goals are recorded states.
            known: M transitions of the recordings.

        Raises:
            UserError: fewer than two transitions, or states that are not finite.
        """
        if len(known.state) < 2:
            raise UserError("what is usual is measured on two recorded steps of the model or more")
        found = torch.cat([error_of(predicted(model, *part[:2]), part[2]) for part in pieces(known, CHUNK)])
        moved = (known.after - known.state).square().mean((1, 2))
        if not found.isfinite().all():
            raise UserError("predictions for these recordings are not finite; were they made for this world model?")
        chosen = torch.linspace(0, len(known.state) - 1, min(GOALS, len(known.state))).long()
        goal = known.after[(chosen + len(known.state) // 2) % len(known.state)]
        here, there = (energy(cost, states[chosen], replace(task, goal=goal)) for states in (known.state, known.after))
        step = (here - there).abs().median().clamp_min(1e-9)
        levels = torch.linspace(0, 1, LEVELS)
        return cls(torch.quantile(found, levels), step, moved.median())

    def ratio(self, error: Tensor, level: float = 0.99) -> Tensor:
        """Errors in units of the quantile `level` of the usual ones: above 1 is surprising; any shape."""
        return error / self.errors[round(level * (LEVELS - 1))].clamp_min(1e-12)


class Settled(NamedTuple):
    """Expectations of some environments against what came."""

    rows: Tensor  # (K,) which of those asked for had an expectation, as indices into them
    state: Tensor  # (K, N, D) where it began
    action: Tensor  # (K, A)
    expected: Tensor  # (K, N, D)
    error: Tensor  # (K,)


class Expecting:
    """What each environment is expected to look like when its block of actions has ended."""

    def __init__(self) -> None:
        self.held: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def forget(self, rows: Tensor | None = None) -> None:
        """Of environments `(B,)` that begin a new episode; of all without."""
        for row in list(self.held) if rows is None else rows.tolist():
            self.held.pop(row, None)

    def expect(self, rows: Tensor, state: Tensor, action: Tensor, expected: Tensor) -> None:
        """Keep: rows `(B,)`, states `(B, N, D)`, actions `(B, A)` and the predicted states."""
        self.held |= dict(zip(rows.tolist(), zip(state, action, expected, strict=True), strict=True))

    def settle(self, rows: Tensor, state: Tensor) -> Settled | None:
        """Compare with what is seen now, and forget; None where nothing was expected.

        Args:
            rows: `(B,)`.
            state: `(B, N, D)`.
        """
        places = [place for place, row in enumerate(rows.tolist()) if row in self.held]
        if not places:
            return None
        kept = [self.held.pop(int(rows[place])) for place in places]
        before, action, expected = (torch.stack(one) for one in zip(*kept, strict=True))
        found = torch.tensor(places, device=state.device)
        return Settled(found, before, action, expected, error_of(expected, state[found]))


def error_of(expected: Tensor, found: Tensor) -> Tensor:
    """Squared error, mean over tokens and width: `(B, N, D)` twice -> `(B,)`."""
    return (expected - found).square().mean((1, 2))


@torch.no_grad()
def predicted(model: WorldModel, state: Tensor, action: Tensor) -> Tensor:
    """One step of the model, `(B, N, D)`, `(B, A)` -> `(B, N, D)`."""
    return model.rollout(state, action[:, None])[:, 0]


@torch.no_grad()
def energy(cost: Cost, state: Tensor, task: Task) -> Tensor:
    """What a state costs, `(B, N, D)` -> `(B,)`: everything but effort and bounds, which are of actions."""
    idle = state.new_zeros(len(state), 1, cost.action.width)
    quiet = replace(task, u={name: weight for name, weight in task.u.items() if name in ("goal", "uncertainty")})
    return cost(state[:, None], idle, quiet, state.new_zeros(len(state), 1))


def pieces(known: Transitions, size: int) -> list[Transitions]:
    """The same, so many at a time."""
    return [Transitions(*one) for one in zip(*(field.split(size) for field in known), strict=True)]

"""A part of a task, as a level of a hierarchy gets it from the level above: be there, as I see it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.task import Task

Lift = Callable[[Tensor], Tensor]  # states below (B, L, N, D), as the level above sees each, (B, L, N', D')


class Aim(NamedTuple):
    """A sub-goal for each environment, in the latent space of the level that set it."""

    state: Tensor  # (B, N', D')
    given: Tensor  # (B,) bool; where it is not, the goal itself counts

    def of(self, rows: Tensor) -> Self:
        """Of some environments; `rows` `(B',)`."""
        return type(self)(self.state[rows], self.given[rows])


@dataclass(frozen=True)
class Stage(Task):
    """A task with a sub-goal on the way; the goal is one for each environment, `(B, N, D)`.

    Args:
        aim: the sub-goal; None where the goal is the only one.
    """

    aim: Aim | None = None

    def of(self, rows: Tensor) -> Self:
        aim = None if self.aim is None else self.aim.of(rows)
        return replace(self, goal=self.goal[rows], aim=aim)


class Towards(Cost):
    """A cost whose goal term is the distance from a stage's sub-goal, measured where the level above measures it.

    What tells the agent apart from its goal at a glance, such as walls between them, is what upper levels are for; and
    what they leave out, such as a distractor, cannot mislead the level below (arXiv 2610.06805).

    Args:
        inner: judges all the rest.
        lift: predicted states as the level above sees them.
    """

    def __init__(self, inner: Cost, lift: Lift) -> None:
        super().__init__(inner.action, dict(inner.critics), inner.recorded)
        self.inner, self.lift = inner, lift

    def intrinsic(
        self, states: Tensor, plan: Tensor, task: Task, disagreement: Tensor | None = None
    ) -> dict[str, Tensor]:
        """As in `Cost`, but for the term `goal`."""
        terms = self.inner.intrinsic(states, plan, task, disagreement)
        aim = task.aim if isinstance(task, Stage) else None
        if aim is not None and "goal" in terms and aim.given.any():
            off = (self.lift(states) - aim.state[:, None]).square().mean((-1, -2))  # (B, L)
            terms["goal"] = torch.where(aim.given[:, None], off, terms["goal"])
        return terms

"""A planner: searches for the plan whose imagined future costs least (LeCun 2022, Mode-2, figure 4)."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.planners.problem import Plan, Problem, Scores
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.uncertainty import draw
from jepa_pretrain.agent.world_model import WorldModel

SHOWN = 8  # candidates that a plan keeps, for pages


class Planner(ABC):
    """Settings of a search; frozen, so that one planner serves any number of problems."""

    max_rollouts: int

    def plan(
        self,
        model: WorldModel,
        cost: Cost,
        state: Tensor,
        task: Task,
        generator: torch.Generator,
        start: Tensor | None = None,
    ) -> Plan:
        """The best plan found from each state.

        Args:
            model: predicts.
            cost: judges.
            state: `(B, N, D)`.
            task: goal, horizon L, weights.
            generator: on the state's device; whatever the search draws comes from it.
            start: a plan `(B, L', A)` to start from, or None.

        Raises:
            UserError: shapes that do not fit the model, actions of the other kind, numbers that are not finite.
        """
        chance = draw(model, task, state, generator)
        problem = Problem(model, cost, state, task, type(self).__name__, self.max_rollouts, chance)
        return self.search(problem, generator, start)

    @abstractmethod
    def search(self, problem: Problem, generator: torch.Generator, start: Tensor | None) -> Plan:
        """What `plan` returns."""


def best(candidates: Tensor, scores: Scores) -> Plan:
    """The best of some candidates.

    Args:
        candidates: `(B, S, L, A)`.
        scores: of each, `(B, S)`.
    """
    order = scores.key().topk(min(SHOWN, candidates.shape[1]), largest=False).indices  # (B, K)
    rows = torch.arange(len(order), device=order.device)
    first = order[:, 0]
    return Plan(
        candidates[rows, first],
        scores.cost[rows, first],
        scores.violation[rows, first],
        candidates[rows[:, None], order],
    )


def better(old: Plan | None, new: Plan) -> Plan:
    """For each state the better of two plans; the candidates are the newer ones.

    Args:
        old: what was found before, or None.
        new: what was found now.
    """
    if old is None:
        return new
    wins = (new.violation < old.violation) | ((new.violation == old.violation) & (new.cost < old.cost))  # (B,)
    return Plan(
        torch.where(wins[:, None, None], new.actions, old.actions),
        torch.where(wins, new.cost, old.cost),
        torch.where(wins, new.violation, old.violation),
        new.candidates,
    )

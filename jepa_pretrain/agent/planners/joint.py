"""All levels of a hierarchy planned at once, by gradient through all their plans (LeCun 2022, section 4.7).

From the top down a level asks for what is best as it sees it, whether or not the level below can do it. Here the cost
of every level is summed and lowered together: the gradient of a lower level's cost passes through its sub-goal into the
plan above, so that what is asked for and what can be done meet.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jepa_pretrain.agent.planners.gradient import EDGE
from jepa_pretrain.agent.planners.hierarchical import Hierarchical, off
from jepa_pretrain.agent.planners.planner import SHOWN, Planner
from jepa_pretrain.agent.planners.problem import Plan, Problem, Thought
from jepa_pretrain.agent.planners.stage import Aim, Stage, Towards
from jepa_pretrain.agent.uncertainty import draw
from jepa_pretrain.agent.world_model import imagine
from jepa_pretrain.contracts import UserError


@dataclass(frozen=True)
class Joint(Planner):
    """Improves what a search from the top down found, by Adam on the plans of all levels; continuous actions only.

    Args:
        first: the search from the top down, with the levels.
        starts: sets of plans that are improved side by side; the first is what `first` found.
        iterations: steps of Adam.
        rate: its learning rate, before tanh.
        spread: deviation of the other starts, before tanh.
        max_rollouts: sets of plans whose gradients are computed at once; more are refused.

    Raises:
        UserError: no start or no iteration, or sub-goals that are looked up, through which no gradient passes.
    """

    first: Hierarchical
    starts: int = 4
    iterations: int = 20
    rate: float = 0.05
    spread: float = 0.2
    max_rollouts: int = 4096

    def __post_init__(self) -> None:
        if self.starts < 1 or self.iterations < 1:
            raise UserError(f"Joint needs a start and an iteration, found {self.starts} and {self.iterations}")
        if not self.first.lifted:
            raise UserError("Joint needs lifted sub-goals: no gradient passes through those that are looked up")

    def search(self, problem: Problem, generator: torch.Generator, start: Tensor | None) -> Plan:
        if problem.batch * self.starts * problem.futures > self.max_rollouts:
            raise UserError(
                f"Joint: {problem.batch} states x {self.starts} starts x {problem.futures} futures are more than "
                f"max_rollouts, {self.max_rollouts}; take fewer starts, or plan for fewer states at a time"
            )
        task = problem.task
        guess = self.first.plan(problem.model, problem.cost, problem.state, task, generator, start)
        rows = torch.arange(problem.batch, device=problem.state.device).repeat_interleave(self.starts)
        floors = self._floors(problem.of(rows), generator)
        ranges = [((low + high) / 2, (high - low) / 2) for low, high in (one.bounds() for one in floors)]
        given = [guess.actions, *(one.actions for one in guess.thoughts)]
        free = [
            self._begin(plan, *half, generator)[:, : floor.length]
            for plan, half, floor in zip(given, ranges, floors, strict=True)
        ]
        best, least = self._descend(floors, free, ranges)
        return self._plan(problem.batch, floors, best, least)

    def _floors(self, problem: Problem, generator: torch.Generator) -> list[Problem]:
        """The problem of every level, lowest first, without sub-goals; one row for each start."""
        task, floors = problem.task, []
        state, goal = problem.state, problem.task.goal.expand(problem.batch, -1, -1)
        whole = Stage(goal, task.horizon, task.u, task.v, task.guardrails, task.risk, task.samples)
        floors.append(replace(problem, task=whole))
        for level in self.first.levels:
            state, goal = level.lift(state[:, None])[:, 0], level.lift(goal[:, None])[:, 0]
            part = Stage(goal, level.horizon, level.u, risk=task.risk, samples=task.samples)
            chance = draw(level.model, part, state[:: self.starts], generator)  # starts of one state share their luck
            chance = None if chance is None else chance.repeat_interleave(self.starts, dim=0)
            floors.append(Problem(level.model, level.cost, state, part, "Joint", self.max_rollouts, chance))
        return floors

    def _begin(self, plan: Tensor, middle: Tensor, half: Tensor, generator: torch.Generator) -> Tensor:
        """Starts around a plan `(B, L, A)`, before tanh, `(B S, L, A)`; what nobody planned is in the middle."""
        centre = ((plan - middle) / half).nan_to_num(0.0).clamp(-EDGE, EDGE).atanh()
        shape = (plan.shape[0], self.starts, *plan.shape[1:])
        noise = torch.randn(shape, generator=generator, device=plan.device, dtype=plan.dtype)
        noise[:, 0] = 0
        return (centre[:, None] + self.spread * noise).flatten(0, 1).detach()

    def _descend(
        self, floors: list[Problem], free: list[Tensor], ranges: list[tuple[Tensor, Tensor]]
    ) -> tuple[list[Tensor], Tensor]:
        """The best plans that each start passed through, `(B S, L, A)` of every level, and their keys `(B S, 2)`."""
        best, least = [one.clone() for one in free], free[0].new_full((len(free[0]), 2), torch.inf)
        moments = [(torch.zeros_like(one), torch.zeros_like(one)) for one in free]
        for step in range(1, self.iterations + 2):
            with torch.enable_grad():
                free = [one.detach().requires_grad_(True) for one in free]
                plans = [mid + half * one.tanh() for one, (mid, half) in zip(free, ranges, strict=True)]
                cost, violation, _ = energy(floors, self.first, plans)
                slopes = torch.autograd.grad(cost.sum(), free, allow_unused=True)
            key = torch.stack([violation, cost], 1).detach()
            wins = (key[:, 0] < least[:, 0]) | ((key[:, 0] == least[:, 0]) & (key[:, 1] < least[:, 1]))
            least = torch.where(wins[:, None], key, least)
            pairs = zip(best, plans, strict=True)
            best = [torch.where(wins[:, None, None], new.detach(), old) for old, new in pairs]
            for i, slope in enumerate(slopes):
                if slope is None or not slope.isfinite().all():
                    raise UserError(f"Joint: the gradient of level {i + 1} is not finite, or does not reach its plan")
                mean = moments[i][0].lerp(slope, 0.1)
                square = moments[i][1].lerp(slope.square(), 0.001)
                moments[i] = (mean, square)
                free[i] = free[i] - self.rate * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        return best, least

    def _plan(self, batch: int, floors: list[Problem], best: list[Tensor], least: Tensor) -> Plan:
        """For each state the best of its starts."""
        cost, violation = least[:, 1].unflatten(0, (batch, -1)), least[:, 0].unflatten(0, (batch, -1))
        behind = cost.amax(1, keepdim=True) + 1 + violation
        order = torch.where(violation > 0, behind, cost).argsort(1)
        rows = torch.arange(batch, device=order.device)
        first = order[:, 0]
        with torch.no_grad():
            thoughts = energy(floors, self.first, best)[2]
        picked = rows * self.starts + first
        actions = best[0].unflatten(0, (batch, -1))
        return Plan(
            actions[rows, first], cost[rows, first], violation[rows, first], actions[rows[:, None], order[:, :SHOWN]],
            tuple(Thought(*(part[picked] for part in one[:3])) for one in thoughts),
        )  # fmt: skip


def energy(floors: list[Problem], first: Hierarchical, plans: list[Tensor]) -> tuple[Tensor, Tensor, list[Thought]]:
    """What plans of all levels cost together.

    Args:
        floors: the problem of every level, lowest first, R rows each.
        first: the levels.
        plans: of every level, `(R, L, A)`.

    Returns:
        The sum of the levels' costs `(R,)`, the violation of the lowest's guardrails `(R,)`, and the upper thoughts.
    """
    aim, total, thoughts = None, 0.0, []
    rows = torch.arange(len(plans[0]), device=plans[0].device)
    for number in range(len(plans) - 1, 0, -1):
        one, level = towards(floors[number], first, number, aim), first.levels[number - 1]
        total = total + one.score_rows(plans[number], rows).cost
        ahead = imagine(one.model, one.state, plans[number]).states
        with torch.no_grad():
            now = off(one.cost, one.state[:, None], plans[number][:, :1], one.task)[:, 0]
            given = (now > level.near) & (level.left(now, torch.zeros_like(rows)) > 0)
        given = given if aim is None else given | aim.given
        aim = Aim(ahead[:, 0], given)
        thoughts.insert(0, Thought(plans[number], ahead, torch.where(given, level.horizon, 0)))
    scores = towards(floors[0], first, 0, aim).score_rows(plans[0], rows)
    return total + scores.cost, scores.violation, thoughts


def towards(floor: Problem, first: Hierarchical, number: int, aim: Aim | None) -> Problem:
    """The problem of level `number`, 0 for the lowest, with the sub-goal that the level above sets."""
    if aim is None:
        return floor
    return replace(floor, cost=Towards(floor.cost, first.levels[number].lift), task=replace(floor.task, aim=aim))

"""Planning on several time scales at once (LeCun 2022, sections 4.6 and 4.7, figures 16 and 17).

From the top down: each level searches its own (macro-)actions for the way to the goal as it sees it, and the first
state on that way becomes the sub-goal of the level below, whose predicted states are lifted into the latent space of
the level above before they are compared. Only the lowest level acts, so to an agent all this is one more planner.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor

from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.planners.planner import SHOWN, Planner
from jepa_pretrain.agent.planners.problem import Plan, Problem, Thought
from jepa_pretrain.agent.planners.stage import Aim, Lift, Stage, Towards
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import WorldModel, imagine
from jepa_pretrain.contracts import UserError


@dataclass(frozen=True)
class Upper:
    """A level above another.

    Args:
        model: predicts one of this level's steps; its `encode` is not asked.
        cost: judges this level's futures.
        planner: searches this level's (macro-)actions.
        lift: states of the level below `(B, L, N, D)` as this one sees each of them, `(B, L, N', D')`.
        horizon: own steps to look ahead at most.
        u: weights of the intrinsic terms; `goal` is the distance from the sub-goal where a level above set one.
        near: distance, as the goal term measures it, at which the goal counts as reached.
        pace: typical distance of one step, likewise; the horizon is then what is left to go, and where that is one
            step the level is skipped without a search. None: always the full horizon.
        detour: a way is so much longer than the straight line that `pace` reckons with.
        bank: states of the level below `(R, N, D)` among which that nearest to a sub-goal is taken for it, where
            sub-goals are to be measured in the latent space of the level below.

    Raises:
        UserError: a horizon below 1, or a pace that is not above 0.
    """

    model: WorldModel
    cost: Cost
    planner: Planner
    lift: Lift
    horizon: int = 4
    u: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({"goal": 1.0}))
    near: float = 0.0
    pace: float | None = None
    detour: float = 1.5
    bank: Tensor | None = None

    def __post_init__(self) -> None:
        if self.horizon < 1 or (self.pace is not None and self.pace <= 0):
            raise UserError(f"an upper level needs a horizon >= 1 and a pace > 0: {self.horizon}, {self.pace}")

    def left(self, off: Tensor, least: Tensor) -> Tensor:
        """Own steps to look ahead.

        Args:
            off: distances `(B,)` from the goal or sub-goal.
            least: `(B,)` int64.

        Returns:
            `(B,)` int64, 0 for none.
        """
        if self.pace is None:
            return torch.full_like(least, self.horizon)
        steps = (self.detour * (off / self.pace).sqrt()).ceil().clamp(max=self.horizon).long()
        return torch.where(steps <= 1, 0, steps).maximum(least)


@dataclass(frozen=True)
class Hierarchical(Planner):
    """The levels of a search; the lowest one's model, cost and task are those that `plan` is given.

    Args:
        planner: of the lowest level, which looks `task.horizon` steps ahead: as many as a step above it takes.
        levels: those above, lowest first; may be empty.
        lifted: measure sub-goals in the latent space of the level that sets them, and not in that of the one below.

    Raises:
        UserError: not lifted, and a level without a bank.
    """

    planner: Planner
    levels: tuple[Upper, ...] = ()
    lifted: bool = True

    def __post_init__(self) -> None:
        if not self.lifted and any(level.bank is None for level in self.levels):
            raise UserError("sub-goals in the latent space below need a bank of its states at every upper level")

    @property
    def max_rollouts(self) -> int:
        """Of the lowest level."""
        return self.planner.max_rollouts

    def search(self, problem: Problem, generator: torch.Generator, start: Tensor | None) -> Plan:
        task = problem.task
        states, goals = [problem.state], [task.goal.expand(problem.batch, -1, -1)]
        for level in self.levels:
            states.append(level.lift(states[-1][:, None])[:, 0])
            goals.append(level.lift(goals[-1][:, None])[:, 0])
        aim, thoughts = None, []
        for number in reversed(range(len(self.levels))):
            level = self.levels[number]
            part = Stage(goals[number + 1], level.horizon, level.u, risk=task.risk, samples=task.samples)
            cost, part = self._towards(level.cost, part, number + 1, aim)
            thought = think(level, cost, states[number + 1], part, generator)
            aim = Aim(thought.states[:, 0].nan_to_num(), thought.steps > 0)
            thoughts.insert(0, thought)
        part = Stage(goals[0], task.horizon, task.u, task.v, task.guardrails, task.risk, task.samples)
        cost, part = self._towards(problem.cost, part, 0, aim)
        found = self.planner.plan(problem.model, cost, problem.state, part, generator, start)
        return found._replace(thoughts=tuple(thoughts))

    def _towards(self, cost: Cost, part: Stage, number: int, aim: Aim | None) -> tuple[Cost, Stage]:
        """What level `number`, 0 for the lowest, is asked to do by the one above."""
        if aim is None:
            return cost, part
        above = self.levels[number]
        if self.lifted:
            return Towards(cost, above.lift), replace(part, aim=aim)
        seen = above.lift(above.bank.to(part.goal)[:, None])[:, 0].flatten(1)  # (R, N' D')
        own = above.bank.to(part.goal)[torch.cdist(aim.state.flatten(1), seen).argmin(1)]  # (B, N, D)
        return cost, replace(part, goal=torch.where(aim.given[:, None, None], own, part.goal))


def think(level: Upper, cost: Cost, state: Tensor, task: Stage, generator: torch.Generator) -> Thought:
    """What one upper level would do.

    Args:
        level: its model, planner and horizon.
        cost: judges.
        state: `(B, N, D)`.
        task: goal and sub-goal. Where there is no sub-goal, and the goal is one step away, there is nothing to add.
        generator: for what the search draws.
    """
    batch, width = len(state), level.model.action.width
    asked = task.aim.given if task.aim is not None else torch.zeros(batch, dtype=torch.bool, device=state.device)
    with torch.no_grad():
        now = off(cost, state[:, None], state.new_zeros(batch, 1, width), task)[:, 0]
        steps = level.left(now, asked.long())
        actions = state.new_full((batch, level.horizon, width), math.nan)
        states = state.new_full((batch, level.horizon, *state.shape[1:]), math.nan)
        branches = state.new_full((batch, SHOWN, level.horizon, width), math.nan)
    for horizon in steps.unique().tolist():
        if not horizon:
            continue
        rows = (steps == horizon).nonzero()[:, 0]
        part = replace(task.of(rows), horizon=horizon)
        found = level.planner.plan(level.model, cost, state[rows], part, generator)
        plan = found.actions
        with torch.no_grad():
            ahead = imagine(level.model, state[rows], plan).states
            distance = off(cost, ahead, plan, part)  # (B', H)
        arrived = (distance <= distance.amin(1, keepdim=True).clamp_min(level.near)).long().argmax(1) + 1
        done = (distance[:, 0] <= level.near) & ~asked[rows]
        actions[rows, :horizon], states[rows, :horizon] = plan, ahead
        branches[rows, : found.candidates.shape[1], :horizon] = found.candidates
        steps[rows] = torch.where(done, 0, arrived)
    beyond = torch.arange(level.horizon, device=state.device) >= steps[:, None]  # (B, H)
    return Thought(
        actions.masked_fill(beyond[:, :, None], math.nan),
        states.masked_fill(beyond[:, :, None, None], math.nan),
        steps,
        branches,
    )


def off(cost: Cost, states: Tensor, plan: Tensor, task: Task) -> Tensor:
    """Distance from the goal, or the sub-goal, `(B, L)`; arguments as in `Cost.intrinsic`."""
    return cost.intrinsic(states, plan, replace(task, u={"goal": 1.0}, guardrails=()))["goal"]

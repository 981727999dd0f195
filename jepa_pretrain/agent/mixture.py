"""Mode-1 and Mode-2 in one actor: in every environment, at every decision, what the configurator says."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jepa_pretrain.agent.actor import Planning, Policy, idle, imagined
from jepa_pretrain.agent.configurator import AHEAD, LITTLE, MUCH, REACT, Choice, Configurator, Situation, Spent
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.planners.planner import Planner
from jepa_pretrain.agent.planners.problem import Plan, Problem
from jepa_pretrain.agent.surprise import Expecting, energy, predicted
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import WorldModel

GAINED = 0.5  # usual steps by which the cost must fall to count as a way on


@dataclass
class Progress:
    """The least cost that each environment has seen, and for how many decisions it has not fallen."""

    best: Tensor  # (E,)
    stalled: Tensor  # (E,)

    @classmethod
    def of(cls, environments: int) -> "Progress":
        """Nothing seen yet."""
        return cls(torch.full((environments,), torch.inf), torch.zeros(environments))

    def forget(self, rows: Tensor) -> None:
        """Of environments `(B,)` whose episode or goal is new."""
        self.best[rows], self.stalled[rows] = torch.inf, 0

    def see(self, rows: Tensor, cost: Tensor) -> Tensor:
        """Costs `(B,)` now; returns decisions without a way on, `(B,)`."""
        on = cost < self.best[rows] - GAINED
        self.best[rows] = torch.where(on, cost, self.best[rows])
        self.stalled[rows] = torch.where(on, 0, self.stalled[rows] + 1)
        return self.stalled[rows]


class Handed(Planning):
    """Begins with what is left of the plan of whoever thought before, unless the policy's costs less.

    Args:
        model: predicts.
        cost: judges.
        planner: searches.
        policy: reacts.
        follows: begin with what the policy would do where that costs less; with nothing without.
        seed: of all that the search draws.
    """

    def __init__(
        self, model: WorldModel, cost: Cost, planner: Planner, policy: Policy, follows: bool, seed: int = 0
    ) -> None:
        super().__init__(model, cost, planner, seed, policy)
        self.follows = follows

    def _start(self, state: Tensor, task: Task, names: list[int]) -> Tensor | None:
        """The better of both plans, `(B, L, A)`."""
        own = imagined(self.policy, self.model, state, task)[1]
        nothing = idle(self.model.action).to(state).expand_as(own)
        start = (own if self.follows else nothing).clone()
        for length in {len(self.last[name]) for name in names if name in self.last} - {0}:
            kept = [row for row, name in enumerate(names) if name in self.last and len(self.last[name]) == length]
            rows, same = torch.tensor(kept, device=state.device), min(length, task.horizon)
            left = torch.stack([self.last[names[row]] for row in kept])[:, :same]
            better = self._cheaper(state[rows], task.of(rows), left, own[rows, :same])
            filled = torch.cat([left, nothing[rows, same:]], dim=1)
            start[rows] = torch.where(better[:, None, None], filled, start[rows])
        return start

    def _cheaper(self, state: Tensor, task: Task, left: Tensor, own: Tensor) -> Tensor:
        """Whether what is left of a plan costs less than the policy's, as far as it goes: `(B, L, A)` twice, `(B,)`."""
        task = replace(task, horizon=left.shape[1])
        problem = Problem(self.model, self.cost, state, task, "Mixture", self.planner.max_rollouts)
        key = problem.score(torch.stack([left, own], dim=1)).key()
        return key[:, 0] < key[:, 1]


class Mixture:
    """Reacts or thinks, each environment for itself; answers as `Planning` and `Policy` do.

    Whoever thinks begins with what is left of the plan of whoever thought before, if it costs less than what the policy
    would do, which in a changed world may be wrong. Otherwise thinking little begins with what the policy would do, and
    thinking much with nothing: where the policy is stuck, its plan is the very one to get away from.

    Args:
        model: predicts.
        cost: judges.
        planner: thinks much.
        policy: reacts.
        configurator: says which.
        seed: of all that searches draw.
    """

    def __init__(
        self, model: WorldModel, cost: Cost, planner: Planner, policy: Policy, configurator: Configurator, seed: int = 0
    ) -> None:
        self.model, self.cost, self.policy, self.configurator = model, cost, policy, configurator
        little = Handed(model, cost, configurator.little, policy, True, seed)
        self.planning = {LITTLE: little, MUCH: Handed(model, cost, planner, policy, False, seed)}
        self.spent = Spent()
        self.found: Plan | None = None  # of the last decision, where all environments thought alike
        self.choice: Choice | None = None
        self.situation: Situation | None = None
        self.begin(1)

    def begin(self, environments: int) -> None:
        """Forget all.

        Args:
            environments: how many will act.
        """
        left: dict[int, Tensor] = {}  # of the plans of all modes
        for one in self.planning.values():
            one.begin(environments)
            one.last = left
        self.expecting, self.progress = Expecting(), Progress.of(environments)
        self.mode = torch.full((environments,), -1)

    def forget(self, rows: Tensor) -> None:
        """Forget plans and expectations of environments `(B,)` whose episode or goal is new."""
        for one in self.planning.values():
            one.forget(rows)
        self.expecting.forget(rows)
        self.progress.forget(rows)

    @torch.no_grad()
    def act(self, state: Tensor, task: Task, rows: Tensor | None = None) -> Tensor:
        """What the policy would do, or a plan's first action, as the configurator says of each environment.

        Arguments and result as those of `Planning.act`.
        """
        rows = torch.arange(len(state)) if rows is None else rows
        self.situation, action, after = self._look(state, task, rows)
        self.choice, tasks = self.configurator.configure(self.situation, task)
        self._count(rows, self.choice.mode)
        self.found = None
        reacting = rows[self.choice.mode == REACT]
        for mode, planning in self.planning.items():
            chosen = (self.choice.mode == mode).nonzero()[:, 0]
            planning.forget(reacting)  # a plan made before reacting is of elsewhere
            if len(chosen):
                action = action.index_copy(0, chosen, planning.act(state[chosen], tasks[mode].of(chosen), rows[chosen]))
                self.found = planning.found if len(chosen) == len(rows) else None
        thought = self.choice.mode != REACT
        if thought.any():
            after[thought] = predicted(self.model, state[thought], action[thought])
        self.expecting.expect(rows, state, action, after)
        return action

    def _look(self, state: Tensor, task: Task, rows: Tensor) -> tuple[Situation, Tensor, Tensor]:
        """The situation, what the policy would do, and where that would lead in one block."""
        usual, settled = self.configurator.usual, self.expecting.settle(rows, state)
        surprise = state.new_zeros(len(state))
        if settled is not None:
            surprise[settled.rows] = usual.ratio(settled.error)
        action = self.policy.act(state, task)
        after = later = predicted(self.model, state, action)
        for _ in range(AHEAD - 1):
            later = predicted(self.model, later, self.policy.act(later, task))
        cost, near, far = self._steps(torch.stack([state, after, later]), task)
        distance = (state - task.goal).square().mean((1, 2)) / usual.distance
        stalled = self.progress.see(rows, cost)
        return Situation(cost, cost - near, cost - far, surprise, stalled, distance), action, after.clone()

    def _steps(self, states: Tensor, task: Task) -> Tensor:
        """What states cost, in usual steps, all in one call: `(K, B, N, D)` -> `(K, B)`."""
        rows = torch.arange(states.shape[1], device=states.device).repeat(len(states))
        found = energy(self.cost, states.flatten(0, 1), task.of(rows))
        return found.unflatten(0, states.shape[:2]) / self.configurator.usual.step

    def _count(self, rows: Tensor, mode: Tensor) -> None:
        for number in range(len(self.spent.decisions)):
            self.spent.decisions[number] += int((mode == number).sum())
        before = self.mode[rows]
        self.spent.switches += int(((before >= 0) & (before != mode)).sum())
        self.mode[rows] = mode

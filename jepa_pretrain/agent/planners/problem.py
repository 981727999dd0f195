"""One planning problem: from plans to costs, in pieces that fit into memory, with every mistake named."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from jepa_pretrain.agent.cost import Charge, Cost
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.uncertainty import futures, members, weigh
from jepa_pretrain.agent.world_model import Continuous, Discrete, Ensemble, WorldModel, imagine
from jepa_pretrain.contracts import UserError

CACHED = 1024  # futures that a processor's cache has room for; more at once are slower there


class Scores(NamedTuple):
    """What plans cost; of two plans the one that violates less is better, then the one that costs less."""

    cost: Tensor  # (B, S)
    violation: Tensor  # (B, S) of the hard guardrails, summed over the steps

    def key(self) -> Tensor:
        """Numbers that rank in that order, `(B, S)`: whatever violates comes after everything that does not."""
        behind = self.cost.amax(1, keepdim=True) + 1 + self.violation
        return torch.where(self.violation > 0, behind, self.cost)

    def order(self) -> Tensor:
        """Indices in that order, best first, `(B, S)`; infinite costs are allowed here."""
        by_cost = self.cost.argsort(dim=1, stable=True)
        by_violation = self.violation.gather(1, by_cost).argsort(dim=1, stable=True)
        return by_cost.gather(1, by_violation)


class Thought(NamedTuple):
    """What one upper level of a hierarchy thought; entries beyond a state's own steps are NaN."""

    actions: Tensor  # (B, H, A) its macro-actions
    states: Tensor  # (B, H, N, D) where they lead; the first is the sub-goal of the level below
    steps: Tensor  # (B,) int64 until the goal is reached, or as far as it looked; 0 where it had nothing to add
    branches: Tensor | None = None  # (B, K, H, A) plans that it considered, best first; kept for pages


class Plan(NamedTuple):
    """What a planner found."""

    actions: Tensor  # (B, L, A)
    cost: Tensor  # (B,)
    violation: Tensor  # (B,) of the hard guardrails; above 0 no plan without was found
    candidates: Tensor  # (B, K, L, A) a few of those that it weighed last, best first
    thoughts: tuple[Thought, ...] = ()  # of the upper levels, from the second upwards

    @property
    def safe(self) -> Tensor:
        """`(B,)` bool: the plan keeps every hard guardrail."""
        return self.violation == 0


@dataclass(frozen=True)
class Problem:
    """States to plan from, and what decides between plans.

    Args:
        model: predicts.
        cost: judges.
        state: `(B, N, D)`.
        task: goal, horizon, weights.
        planner: its name, for messages.
        max_rollouts: futures that are rolled out at once at most; a plan has one for each sample and member.
        chance: `(B, S, L, chances)` what `uncertainty.draw` drew for models with latent variables, or None.

    Raises:
        UserError: a state or goal of another shape than the model's, or one that is not finite.
    """

    model: WorldModel
    cost: Cost
    state: Tensor
    task: Task
    planner: str
    max_rollouts: int
    chance: Tensor | None = None

    def __post_init__(self) -> None:
        expected = (self.model.grid_tokens, self.model.width)
        for name, found in (("state", self.state), ("goal", self.task.goal)):
            if found.dim() != 3 or tuple(found.shape[1:]) != expected:
                raise UserError(
                    f"{self.planner}: a {name} of this world model is (B, {expected[0]}, {expected[1]}), "
                    f"found {tuple(found.shape)}; was it encoded by another encoder?"
                )
            if not found.isfinite().all():
                raise UserError(f"{self.planner}: the {name} holds values that are not finite; look at the encoder")
        if self.task.goal.shape[0] not in (1, self.batch):
            raise UserError(
                f"{self.planner}: {self.task.goal.shape[0]} goals for {self.batch} states; give 1 or as many"
            )
        if self.max_rollouts < self.futures:
            raise UserError(
                f"{self.planner}: max_rollouts must be {self.futures} or more, the futures of a plan, "
                f"found {self.max_rollouts}"
            )

    @property
    def batch(self) -> int:
        """B."""
        return self.state.shape[0]

    @property
    def length(self) -> int:
        """L."""
        return self.task.horizon

    @property
    def futures(self) -> int:
        """Futures of one plan, F = members x samples."""
        return len(members(self.model)) * (1 if self.chance is None else self.chance.shape[1])

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Bounds of continuous actions, each `(A,)`, for planners that need them."""
        action = self.model.action
        if not isinstance(action, Continuous):
            raise UserError(f"{self.planner} plans continuous actions, this model has {action.n} choices; take Beam")
        low, high = action.low.to(self.state), action.high.to(self.state)
        if not (low.isfinite().all() and high.isfinite().all() and (low < high).all()):
            raise UserError(
                f"{self.planner} needs finite bounds with low < high, found {low.tolist()}, {high.tolist()}"
            )
        return low, high

    def choices(self) -> Tensor:
        """Vectors of discrete actions, `(n, A)`, for planners that need them."""
        if not isinstance(self.model.action, Discrete):
            raise UserError(f"{self.planner} plans discrete actions, this model's are continuous; take CEM")
        return self.model.action.choices.to(self.state)

    def begin(self, start: Tensor | None, otherwise: Tensor) -> Tensor:
        """The plan to start from, `(B, L, A)`: cut, or filled up with `otherwise` `(A,)`, to the horizon.

        Args:
            start: `(B, L', A)`, or None.
            otherwise: an action, where there is nothing to start from.

        Raises:
            UserError: actions of another width or number.
        """
        plan = otherwise.expand(self.batch, self.length, -1).clone()
        if start is None:
            return plan
        width = self.model.action.width
        if start.dim() != 3 or start.shape[0] != self.batch or start.shape[2] != width:
            raise UserError(
                f"{self.planner}: a plan to start from is ({self.batch}, L, {width}), found {tuple(start.shape)}"
            )
        plan[:, : start.shape[1]] = start[:, : self.length]
        return plan

    def of(self, rows: Tensor) -> Self:
        """The same problem from some states only; `rows` `(B',)`."""
        chance = None if self.chance is None else self.chance[rows]
        task = self.task.of(rows)
        return type(self)(self.model, self.cost, self.state[rows], task, self.planner, self.max_rollouts, chance)

    def pieces(self, count: int) -> list[slice]:
        """Slices with at most `max_rollouts` futures, on a CPU also `CACHED`, that together are `count` plans."""
        most = min(self.max_rollouts, CACHED) if self.state.device.type == "cpu" else self.max_rollouts
        size = max(most // self.futures, 1)
        return [slice(i, i + size) for i in range(0, count, size)]

    def score(self, plans: Tensor) -> Scores:
        """Costs of S plans for each state, without gradients: `(B, S, L, A)` -> `(B, S)` each."""
        samples = plans.shape[1]
        rows = torch.arange(self.batch, device=plans.device).repeat_interleave(samples)
        flat = plans.flatten(0, 1)
        with torch.no_grad():
            parts = [self.score_rows(flat[piece], rows[piece]) for piece in self.pieces(len(rows))]
        cost, violation = (torch.cat(one).unflatten(0, (self.batch, samples)) for one in zip(*parts, strict=True))
        return Scores(cost, violation)

    def score_rows(self, plans: Tensor, rows: Tensor) -> Scores:
        """Costs of plans from the states that `rows` names, with gradients: `(R, L, A)`, `(R,)` -> `(R,)` each."""
        found = futures(self.model, self.state[rows], plans, None if self.chance is None else self.chance[rows])
        count = found.states.shape[1]
        if count > 1:
            rows, plans = rows.repeat_interleave(count), plans.repeat_interleave(count, dim=0)
        states, task = found.states.flatten(0, 1), self.task.of(rows)  # (R F, L, N, D)
        disagreement = None if found.disagreement is None else found.disagreement.flatten(0, 1)
        charge = self.cost.charge(states, plans, task, disagreement)
        cost = charge.running.sum(1) + self.cost.final(states[:, -1], task)
        self.check(cost, states)
        cost, violation = (one.unflatten(0, (-1, count)) for one in (cost, charge.violation.sum(1)))  # (R, F)
        return Scores(weigh(cost, self.task.risk), violation.mean(1))  # one future that violates is enough

    def advance(self, states: Tensor, actions: Tensor, rows: Tensor) -> tuple[Tensor, Charge]:
        """One step of many: `(R, N, D)`, `(R, A)`, `(R,)` -> the next states, and what each cost, `(R,)`.

        An ensemble's mean is followed; a state that chance spreads, or a deviation, is no sum over steps.
        """
        if self.chance is not None or (self.task.risk and isinstance(self.model, Ensemble)):
            raise UserError(f"{self.planner} follows one future, and so knows no chance and no risk; take MCTS")
        ends, running, violation = [], [], []
        with torch.no_grad():
            for piece in self.pieces(len(rows)):
                plans = actions[piece, None]
                after, disagreement = imagine(self.model, states[piece], plans)  # (R, 1, N, D)
                charge = self.cost.charge(after, plans, self.task.of(rows[piece]), disagreement)
                self.check(charge.running.sum(1), after)
                ends.append(after[:, 0])
                running.append(charge.running[:, 0])
                violation.append(charge.violation[:, 0])
        return torch.cat(ends), Charge(torch.cat(running), torch.cat(violation))

    def final(self, states: Tensor, rows: Tensor) -> Tensor:
        """What the critics say of all that follows: `(R, N, D)`, `(R,)` -> `(R,)`."""
        with torch.no_grad():
            parts = [self.cost.final(states[one], self.task.of(rows[one])) for one in self.pieces(len(rows))]
        return torch.cat(parts)

    def check(self, cost: Tensor, states: Tensor) -> None:
        """Refuse costs that are not finite, naming the step of the plan where it began."""
        if cost.isfinite().all():  # one number per plan: states are looked at only when something is wrong
            return
        bad = (~states.isfinite()).flatten(2).any(2).any(0)  # (L,)
        if bad.any():
            where = f"the world model predicts values that are not finite from step {int(bad.nonzero()[0]) + 1} on"
        else:
            where = "the cost of predicted states is not finite"
        raise UserError(
            f"{self.planner}: {where}; it was trained on other states or actions, or its weights are damaged"
        )

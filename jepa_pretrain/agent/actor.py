"""Who acts: `Planning` (Mode-2) searches before every block of actions, `Policy` (Mode-1) knows at once what to do.

LeCun 2022, sections 3.1.1 and 3.1.2. Both answer `act(state, task, rows)` with one action of the model, which is a
block of the environment's: plans are made where a block ends, and not within it.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.critic import mlp
from jepa_pretrain.agent.planners.planner import Planner
from jepa_pretrain.agent.planners.problem import Plan
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import ActionSpace, Continuous, WorldModel, unroll
from jepa_pretrain.contracts import UserError


class Decides(Protocol):
    """Mode-2, Mode-1 or both: `Planning`, `Policy`, `mixture.Mixture`, and `adjusting.Adjusting` around one of them."""

    def begin(self, environments: int) -> None: ...

    def forget(self, rows: Tensor) -> None: ...

    def act(self, state: Tensor, task: Task, rows: Tensor | None = None) -> Tensor: ...


class Policy(nn.Module):
    """A(s, goal): what to do in a state, without imagining anything.

    Args:
        width: D of a state.
        tokens: N of a state.
        low: bounds of continuous actions, A numbers; or
        high: the same.
        choices: vectors of discrete actions, n of A numbers; the policy then scores each.
        hidden: width of the hidden layers.
        turned: what `turn` was given last.

    Raises:
        UserError: neither bounds nor choices, or both.
    """

    def __init__(
        self,
        width: int,
        tokens: int = 1,
        low: list[float] | None = None,
        high: list[float] | None = None,
        choices: list[list[float]] | None = None,
        hidden: int = 256,
        turned: list[list[float]] | None = None,
    ) -> None:
        super().__init__()
        if (low is None) == (choices is None) or (low is None) != (high is None):
            raise UserError("a policy needs either low and high bounds or choices")
        self.config = dict(width=width, tokens=tokens, low=low, high=high, choices=choices, hidden=hidden)
        self.discrete = choices is not None
        if choices is not None:
            self.register_buffer("choices", torch.tensor(choices))
        else:
            self.register_buffer("middle", (torch.tensor(high) + torch.tensor(low)) / 2)
            self.register_buffer("reach", (torch.tensor(high) - torch.tensor(low)) / 2)
        self.register_buffer("centre", torch.zeros(width * tokens))  # of the states it learned from
        self.register_buffer("scale", torch.ones(()))
        self.net = mlp(2 * width * tokens, hidden, len(choices if choices is not None else low or []))
        self.turn(None if turned is None else torch.tensor(turned))

    def turn(self, matrix: Tensor | None) -> None:
        """Act in a world whose motors have changed as one would have acted before.

        Args:
            matrix: `(a, a)`, applied to every single action of a block, in place of any earlier one; None for none.
        """
        self.config["turned"] = None if matrix is None else matrix.tolist()
        self.turned = matrix

    @classmethod
    def of(cls, model: WorldModel, hidden: int = 256) -> "Policy":
        """A fresh policy with the shapes of a world model.

        Args:
            model: whose states it reads and whose actions it takes.
            hidden: width of the hidden layers.
        """
        return cls(model.width, model.grid_tokens, **action_lists(model.action), hidden=hidden)

    def forward(self, state: Tensor, goal: Tensor) -> Tensor:
        """`(B, N, D)`, `(B or 1, N, D)` -> actions within the bounds `(B, A)`, or logits of the choices `(B, n)`."""
        s, g = ((one.flatten(1) - self.centre) / self.scale for one in (state, goal))
        out = self.net(torch.cat([s, g.expand_as(s)], 1))
        return out if self.discrete else self._turned(self.middle + self.reach * out.tanh())

    def _turned(self, action: Tensor) -> Tensor:
        """As far as the bounds allow, `(B, A)`."""
        if self.turned is None:
            return action
        single = action.unflatten(1, (-1, len(self.turned))) @ self.turned.T.to(action)
        return torch.maximum(torch.minimum(single.flatten(1), self.middle + self.reach), self.middle - self.reach)

    @torch.no_grad()
    def act(self, state: Tensor, task: Task, rows: Tensor | None = None) -> Tensor:
        """`(B, N, D)` -> the action `(B, A)`; `rows`, the environments asked for, change nothing here."""
        out = self(state, task.goal)
        return self.choices[out.argmax(1)] if self.discrete else out

    def begin(self, environments: int) -> None:
        """There is nothing to forget."""

    def forget(self, rows: Tensor) -> None:
        """Nor here."""


def action_lists(action: ActionSpace) -> dict[str, list]:
    """An action space in plain numbers: `low` and `high`, or `choices`."""
    if isinstance(action, Continuous):
        return {"low": action.low.tolist(), "high": action.high.tolist()}
    return {"choices": action.choices.tolist()}


class Planning:
    """Plans, acts the first action of the plan, and plans again from where that led: receding horizon.

    Args:
        model: predicts.
        cost: judges.
        planner: searches.
        seed: of all that the search draws.
        policy: where a plan starts from in a new episode; the last plan, moved on by a step, does so afterwards.
        warm: start from the last plan.
    """

    def __init__(
        self,
        model: WorldModel,
        cost: Cost,
        planner: Planner,
        seed: int = 0,
        policy: Policy | None = None,
        warm: bool = True,
    ) -> None:
        self.model, self.cost, self.planner, self.policy = model, cost, planner, policy
        self.seed, self.warm = seed, warm
        self.found: Plan | None = None  # the last one, for pages
        self.last: dict[int, Tensor] = {}  # of each environment, what is left of its plan (L - 1, A)
        self.generator: torch.Generator | None = None

    def begin(self, environments: int) -> None:
        """Forget all plans, and draw from the seed again.

        Args:
            environments: how many will act.
        """
        self.last, self.generator, self.found = {}, None, None

    def forget(self, rows: Tensor) -> None:
        """Forget the plans of environments that begin a new episode; `rows` `(B,)`."""
        for row in rows.tolist():
            self.last.pop(row, None)

    def act(self, state: Tensor, task: Task, rows: Tensor | None = None) -> Tensor:
        """The first action of the best plan.

        Args:
            state: `(B, N, D)`.
            task: for these states.
            rows: which environments they are of, `(B,)`; all, in order, without.

        Returns:
            `(B, A)`.
        """
        if self.generator is None:
            self.generator = torch.Generator(state.device).manual_seed(self.seed)
        names = list(range(len(state))) if rows is None else rows.tolist()
        start = self._start(state, task, names)
        self.found = self.planner.plan(self.model, self.cost, state, task, self.generator, start)
        if self.warm:
            self.last |= dict(zip(names, self.found.actions[:, 1:], strict=True))
        return self.found.actions[:, 0]

    def _start(self, state: Tensor, task: Task, names: list[int]) -> Tensor | None:
        """What is left of the last plans; where there is none, what the policy would do, or nothing."""
        kept = [place for place, name in enumerate(names) if name in self.last]
        if task.horizon == 1 or not kept:
            return imagined(self.policy, self.model, state, task)[1] if self.policy else None
        left = torch.stack([self.last[names[place]] for place in kept])
        if len(kept) == len(names):
            return left
        if self.policy:
            start = imagined(self.policy, self.model, state, task)[1][:, :-1]
        else:
            start = idle(self.model.action).to(state).expand(len(names), left.shape[1], -1)
        return start.index_copy(0, torch.tensor(kept, device=state.device), left)


def idle(action: ActionSpace) -> Tensor:
    """What a search begins with where there is nothing to begin with, `(A,)`: the middle, or the first choice."""
    return (action.low + action.high) / 2 if isinstance(action, Continuous) else action.choices[0]


def imagined(policy: Policy, model: WorldModel, state: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """What a policy would do and where it would lead, if the model is right.

    Args:
        policy: acts.
        model: predicts.
        state: `(B, N, D)`.
        task: its horizon is how far.

    Returns:
        The states after each action `(B, L, N, D)`, and the actions `(B, L, A)`.
    """
    actions, states = [], []
    with torch.no_grad():
        for _ in range(task.horizon):
            actions.append(policy.act(state, task))
            state = unroll(model, state, actions[-1][:, None])[:, 0]
            states.append(state)
    return torch.stack(states, 1), torch.stack(actions, 1)

"""The configurator: from what the situation is to how much thought it gets, and with which task (LeCun 2022, 3.1).

Mode-1 is cheap and mostly right, Mode-2 is dear: react while what the policy would bring is good and nothing surprises,
think when not. Everything is asked in units of what is usual on recordings, so that no threshold knows the world.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from jepa_pretrain.agent.critic import mlp
from jepa_pretrain.agent.planners.planner import Planner
from jepa_pretrain.agent.surprise import Usual
from jepa_pretrain.agent.task import Task
from jepa_pretrain.contracts import UserError

MODES = ("react", "think little", "think much")
REACT, LITTLE, MUCH = range(3)
WHY = ("the policy gains", "surprised", "the policy gains nothing", "no way on for long", "thinking is worth its price")
GAINS, SURPRISED, NO_GAIN, STALLED, WORTH = range(5)
AHEAD = 3  # blocks that the policy is imagined to act


class Situation(NamedTuple):
    """What the configurator sees of each environment, each `(B,)`."""

    cost: Tensor  # of what is seen, in usual steps
    gain: Tensor  # what the policy's next block takes off it, if the model is right
    ahead: Tensor  # what three of its blocks take off
    surprise: Tensor  # error of the last prediction, in units of what 1 % of the recorded ones exceed; 0 at first
    stalled: Tensor  # decisions since the cost was last half a step lower than ever before
    distance: Tensor  # squared distance to the goal, in usual steps

    def features(self) -> Tensor:
        """`(B, 6)`, with long tails cut."""
        cost, gain, ahead, surprise, stalled, distance = self
        return torch.stack(
            [cost, gain, ahead.clamp(-10, 10), surprise.log1p(), stalled.log1p(), distance.log1p()], 1
        ).clamp(-50, 50)


class Choice(NamedTuple):
    """How each environment shall act, `(B,)` each."""

    mode: Tensor  # index of `MODES`
    why: Tensor  # index of `WHY`


class Chooser(Protocol):
    """By hand (`Rules`) or learned (`Thrift`)."""

    def choose(self, situation: Situation) -> Choice: ...


@dataclass(frozen=True)
class Rules:
    """Written by hand: react while the policy is expected to gain and nothing surprised.

    Args:
        gain: least share of its blocks that the policy must gain, of the cost that is left at most.
        surprise: error of the last prediction from which on it thinks.
        patience: decisions without a way on after which it thinks, and every so many of which it thinks much: where
            much thinking does not help either, more of it is no use.

    Raises:
        UserError: a patience below 1.
    """

    gain: float = 0.5
    surprise: float = 2.0
    patience: int = 4

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise UserError(f"rules need a patience of one decision or more, found {self.patience}")

    def choose(self, situation: Situation) -> Choice:
        """`(B,)` each."""
        mode = torch.full_like(situation.cost, REACT, dtype=torch.int64)
        why = torch.full_like(mode, GAINS)
        stuck = situation.stalled >= self.patience
        for found, then, because in (
            (situation.ahead < self.gain * situation.cost.clamp(max=AHEAD), LITTLE, NO_GAIN),
            (situation.surprise > self.surprise, LITTLE, SURPRISED),
            (stuck, LITTLE, STALLED),
            (stuck & (situation.stalled % self.patience == 0), MUCH, STALLED),
        ):
            mode, why = mode.masked_fill(found, then), why.masked_fill(found, because)
        return Choice(mode, why)


class Thrift(nn.Module):
    """A small network that predicts what each mode takes off the cost; the cheapest one that brings enough is taken.

    Where none brings enough, the one that brings most for its price.

    Args:
        effort: what each mode costs, in units of the dearest; 0 for reacting.
        enough: usual steps that a block of actions should bring, or half of what is left.
        price: usual steps that an effort of 1 has to bring where nothing is enough.
        hidden: width of the hidden layers.

    Raises:
        UserError: another number of efforts than modes, or a negative price.
    """

    def __init__(
        self,
        effort: Sequence[float] = (0.0, 0.1, 1.0),
        enough: float = 0.5,
        price: float = 1.0,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        if len(effort) != len(MODES) or not price >= 0:
            raise UserError(f"thrift needs {len(MODES)} efforts and a price of 0 or more, found {effort}, {price}")
        self.config: dict[str, Any] = dict(effort=list(effort), enough=enough, price=price, hidden=hidden)
        self.enough, self.price = enough, price
        self.register_buffer("effort", torch.tensor(effort, dtype=torch.float32))
        self.register_buffer("centre", torch.zeros(len(Situation._fields)))  # of what it learned from
        self.register_buffer("scale", torch.ones(len(Situation._fields)))
        self.net = mlp(len(Situation._fields), hidden, len(MODES))

    def forward(self, features: Tensor) -> Tensor:
        """`(B, 6)` -> what each mode is expected to take off the cost, `(B, 3)`, in usual steps."""
        return self.net((features - self.centre) / self.scale)

    @torch.no_grad()
    def choose(self, situation: Situation) -> Choice:
        """`(B,)` each."""
        fall, effort = self(situation.features()), self.effort
        enough = fall >= torch.minimum(torch.tensor(self.enough), situation.cost / 2)[:, None]  # (B, 3)
        cheapest = effort.expand_as(fall).masked_fill(~enough, torch.inf).argmin(1)
        mode = torch.where(enough.any(1), cheapest, (fall - self.price * effort).argmax(1))
        return Choice(mode, torch.where(mode == REACT, GAINS, WORTH))


@dataclass(frozen=True)
class Configurator:
    """What turns a situation into a task and a mode.

    Args:
        chooser: `Rules` or `Thrift`.
        usual: units of the situation.
        little: planner of the middle mode; the agent's own thinks much.
        horizon: model steps that the middle mode looks ahead, at most those of the task.
    """

    chooser: Chooser
    usual: Usual
    little: Planner
    horizon: int = 4

    def configure(self, situation: Situation, task: Task) -> tuple[Choice, dict[int, Task]]:
        """The mode of every environment, and the task in each thinking mode.

        Args:
            situation: of B environments.
            task: their goals, horizon and weights.
        """
        short = replace(task, horizon=min(self.horizon, task.horizon))
        return self.chooser.choose(situation), {LITTLE: short, MUCH: task}


@dataclass
class Spent:
    """Decisions by mode, and how often the mode switched."""

    decisions: list[int] = field(default_factory=lambda: [0] * len(MODES))
    switches: int = 0

    @property
    def thinking(self) -> float:
        """Share of decisions that were thought about."""
        return 1 - self.decisions[REACT] / max(sum(self.decisions), 1)

    def plain(self) -> dict[str, Any]:
        """For a result's JSON."""
        return asdict(self) | {"thinking": self.thinking}

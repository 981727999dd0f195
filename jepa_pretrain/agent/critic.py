"""Trainable critics: what a state will cost later, predicted now (LeCun 2022, section 3.2; TC_j of the cost).

With a critic in the cost a short plan sees beyond its end. `EnergyAfter` and `EnergyToCome` read the short-term memory,
and hold for the task whose energies are in there; `StepsToGo` takes any goal, and learns from trajectories alone.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_pretrain.agent.memory import Memory
from jepa_pretrain.agent.task import Task
from jepa_pretrain.contracts import UserError


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers with layer norm, for critics and policies.

    Args:
        inputs: numbers in.
        hidden: width of both layers.
        outputs: numbers out.
    """
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.GELU(),
        nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.GELU(),
        nn.Linear(hidden, outputs),
    )  # fmt: skip


class EnergyAfter(nn.Module):
    """The intrinsic energy `delay` decisions after a state: its mean, or quantiles of it.

    Args:
        width: D of a state.
        tokens: N of a state.
        delay: decisions.
        quantiles: levels in 0..1, for example (.1, .5, .9); none for the mean. A plan is charged their average.
        hidden: width of the hidden layers.

    Raises:
        UserError: a negative delay, or levels outside 0..1.
    """

    every_step = False

    def __init__(
        self, width: int, tokens: int = 1, delay: int = 1, quantiles: tuple[float, ...] = (), hidden: int = 128
    ) -> None:
        super().__init__()
        if delay < 0 or not all(0 < level < 1 for level in quantiles):
            raise UserError(f"a critic needs a delay from 0 on and levels in 0..1, found {delay} and {quantiles}")
        self.config: dict[str, Any] = dict(
            width=width, tokens=tokens, delay=delay, quantiles=list(quantiles), hidden=hidden
        )
        self.delay = delay
        self.register_buffer("levels", torch.tensor(quantiles or (0.5,)))
        self.register_buffer("scale", torch.ones(2))  # mean and deviation of what it learned from
        self.mean = not quantiles
        self.net = mlp(width * tokens, hidden, len(self.levels))

    def quantiles(self, state: Tensor) -> Tensor:
        """`(B, N, D)` -> `(B, Q)`, one for each level; the mean alone where there are no levels."""
        return self.net(state.flatten(1)) * self.scale[1] + self.scale[0]

    def forward(self, state: Tensor, task: Task | None = None) -> Tensor:
        """`(B, N, D)` -> `(B,)`; the goal of the task is not asked for."""
        return self.quantiles(state).mean(1)

    def targets(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """What there is to learn from: states `(P, N, D)` and energies `(P,)`."""
        return memory.pairs(self.delay)

    def loss(self, state: Tensor, target: Tensor) -> Tensor:
        """Squared error of the mean, or the pinball loss of the quantiles (Koenker and Bassett 1978), `()`."""
        error = (target[:, None] - self.quantiles(state)) / self.scale[1]  # (B, Q)
        return (
            error.square().mean() if self.mean else torch.maximum(self.levels * error, (self.levels - 1) * error).mean()
        )


class EnergyToCome(EnergyAfter):
    """The discounted sum of the energies that follow a state: sum_i discount^(i-1) e[t+i].

    Args:
        width: D of a state.
        tokens: N of a state.
        discount: per decision, below 1.
        steps: terms of the sum that are read from the memory; what comes later is left out, so take
            discount^steps small, or episodes that long.
        quantiles: levels in 0..1; none for the mean.
        hidden: width of the hidden layers.

    Raises:
        UserError: a discount outside 0..1.
    """

    def __init__(
        self,
        width: int,
        tokens: int = 1,
        discount: float = 0.9,
        steps: int = 20,
        quantiles: tuple[float, ...] = (),
        hidden: int = 128,
    ) -> None:
        super().__init__(width, tokens, delay=steps, quantiles=quantiles, hidden=hidden)
        if not 0 < discount <= 1 or steps < 1:
            raise UserError(f"a sum to come needs a discount in 0..1 and steps, found {discount} and {steps}")
        self.config = dict(
            width=width, tokens=tokens, discount=discount, steps=steps, quantiles=list(quantiles), hidden=hidden
        )
        self.discount, self.steps = discount, steps

    def targets(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """States `(P, N, D)` and the sums that followed them `(P,)`."""
        states, energies, _ = memory.windows(self.steps)
        weight = self.discount ** torch.arange(self.steps, device=energies.device, dtype=energies.dtype)
        return states, energies[:, 1:] @ weight


class ToGoal(nn.Module):
    """Says how far states are from any goal; counts at every step of a plan, as a distance does.

    Args:
        numbers: N D of a state.
    """

    every_step = True

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(numbers))  # of the states it learned from
        self.register_buffer("scale", torch.ones(()))

    def standardise(self, states: Tensor) -> None:
        """Take centre and scale from states `(M, N, D)`."""
        flat = states.flatten(1)
        self.centre.copy_(flat.mean(0))
        self.scale.copy_((flat - self.centre).square().mean().sqrt().clamp_min(1e-6))

    def along(self, states: Tensor, goal: Tensor) -> Tensor:
        """States on the way to one goal each, `(B, L, N, D)`, `(B or 1, N, D)` -> `(B, L)`."""
        raise NotImplementedError

    def steps(self, value: Tensor) -> Tensor:
        """Model steps that a value of `along` stands for, of the same shape."""
        raise NotImplementedError

    def between(self, state: Tensor, goal: Tensor) -> Tensor:
        """`(B, N, D)`, `(B or 1, N, D)` -> `(B,)`."""
        return self.along(state[:, None], goal)[:, 0]

    def forward(self, state: Tensor, task: Task) -> Tensor:
        """`(B, N, D)` -> `(B,)`."""
        return self.between(state, task.goal)


class StepsToGo(ToGoal):
    """Model steps from a state to a goal, discounted: (1 - discount^n) / (1 - discount) for n steps.

    Args:
        width: D of a state.
        tokens: N of a state.
        discount: per step, below 1; bounds what is said of goals that are never reached.
        hidden: width of the hidden layers.

    Raises:
        UserError: a discount outside 0..1.
    """

    def __init__(self, width: int, tokens: int = 1, discount: float = 0.98, hidden: int = 256) -> None:
        super().__init__(width * tokens)
        if not 0 < discount < 1:
            raise UserError(f"steps to go need a discount between 0 and 1, found {discount}")
        self.config: dict[str, Any] = dict(width=width, tokens=tokens, discount=discount, hidden=hidden)
        self.discount = discount
        self.net = mlp(3 * width * tokens, hidden, 1)

    def along(self, states: Tensor, goal: Tensor) -> Tensor:
        """States on the way to one goal each, `(B, L, N, D)`, `(B or 1, N, D)` -> `(B, L)`.

        The net reads state, goal and their difference. Its first layer is applied to state and goal by themselves, so
        that the goal's part is computed once; and step after step, so that a processor's cache holds what is computed.
        """
        s, g = ((one.flatten(-2) - self.centre) / self.scale for one in (states, goal))
        own, other, gap = self.net[0].weight.chunk(3, dim=1)  # (hidden, N D) each
        own, towards = own + gap, F.linear(g, other - gap, self.net[0].bias)
        rest = self.net[1:]
        values = [rest(F.linear(one, own) + towards) for one in s.unbind(1)]  # (B, 1) each
        return F.softplus(torch.cat(values, dim=1))

    def steps(self, value: Tensor) -> Tensor:
        """Steps that a discounted value stands for; the other way round than `discounted`."""
        return (1 - (1 - self.discount) * value).clamp_min(1e-6).log() / torch.tensor(self.discount).log()

    def discounted(self, steps: Tensor) -> Tensor:
        """What `forward` should say of so many steps."""
        return (1 - self.discount**steps) / (1 - self.discount)

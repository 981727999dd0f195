"""What may follow a plan, where the model knows more than one answer, and what that makes the plan worth.

Chance enters a world model through its latent variable z, drawn from the prior of the state at hand (LeCun 2022,
section 4.8), and doubt through the members of an ensemble. A plan is judged by all the futures they give:

    cost of a plan = mean + risk * standard deviation, over samples of z and members

Chance is drawn once per search: sample i is one sequence of numbers in (0, 1), the same for every plan that is weighed
and held through the whole rollout, and the state's prior turns it into z. So two plans differ by what they do and not
by luck, and a search over them has something to climb.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import Ensemble, WorldModel

FAINT = 1e-12  # variances below have no gradient: that of the root would be infinite at nought


@runtime_checkable
class Stochastic(Protocol):
    """What a world model with a latent variable offers on top of `WorldModel`; without z it predicts the likeliest."""

    chances: int  # numbers in (0, 1) that one z is made of

    def latents(self, state: Tensor, chance: Tensor) -> Tensor:
        """States `(B, N, D)`, `(B, chances)` uniform in (0, 1) -> z `(B, Z)`, distributed as the states' prior."""
        ...


class Futures(NamedTuple):
    """Every future of some plans; F = members x samples."""

    states: Tensor  # (R, F, L, N, D)
    disagreement: Tensor | None  # (R, F, L) variance over the members; None for a single model


def members(model: WorldModel) -> list[WorldModel]:
    """The models of an ensemble, or the one there is."""
    return list(model.models) if isinstance(model, Ensemble) else [model]


def draw(model: WorldModel, task: Task, state: Tensor, generator: torch.Generator) -> Tensor | None:
    """The chance that a search reckons with.

    Args:
        model: a world model or an ensemble.
        task: its `samples` is S, its horizon L.
        state: `(B, N, D)`.
        generator: on the state's device.

    Returns:
        `(B, S, L, chances)` uniform in (0, 1), or None for models without latent variables.
    """
    first = members(model)[0]
    if not isinstance(first, Stochastic):
        return None
    shape = (len(state), task.samples, task.horizon, first.chances)
    within, order = torch.rand((2, *shape), generator=generator, device=state.device, dtype=state.dtype)
    chance = (order.argsort(1) + within) / task.samples  # each sample in a stratum of its own: few tell as much as many
    return chance.clamp(torch.finfo(state.dtype).tiny, 1 - torch.finfo(state.dtype).eps)  # 0 and 1 are at infinity


def spread(chances: int, length: int, samples: int = 16) -> Tensor:
    """Chance spread evenly, for pages: `(1, S, L, chances)`, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, samples, length, chances, generator=generator).clamp(1e-6, 1 - 1e-6)


def futures(model: WorldModel, state: Tensor, plan: Tensor, chance: Tensor | None) -> Futures:
    """Roll plans out in every way.

    Args:
        model: a world model or an ensemble, each of whose members follows its own states.
        state: `(R, N, D)`.
        plan: `(R, L, A)`.
        chance: `(R, S, L, chances)` as `draw` gives it, or None.
    """
    samples = 1 if chance is None else chance.shape[1]
    if chance is None:
        rolled = [one.rollout(state, plan) for one in members(model)]
    else:
        state, plan = (one.repeat_interleave(samples, dim=0) for one in (state, plan))
        rolled = [_unrolled(one, state, plan, chance.flatten(0, 1)) for one in members(model)]
    if len(rolled) == 1:  # nothing to compare, and nothing to copy
        return Futures(rolled[0].unflatten(0, (-1, samples)), None)  # (R, S, L, N, D)
    states = torch.stack([one.unflatten(0, (-1, samples)) for one in rolled], dim=1)  # (R, M, S, L, N, D)
    variance = states.var(1, unbiased=False, keepdim=True).mean((-1, -2))  # (R, 1, S, L)
    disagreement = variance.expand(-1, states.shape[1], -1, -1).flatten(1, 2)
    return Futures(states.flatten(1, 2), disagreement)


def _unrolled(model: WorldModel, state: Tensor, plan: Tensor, chance: Tensor) -> Tensor:
    """Step by step, as each z depends on where the last ones led: (R, L, A), (R, L, chances) -> (R, L, N, D)."""
    states = []
    for action, luck in zip(plan.unbind(1), chance.unbind(1), strict=True):
        state = model.step(state, action, model.latents(state, luck))
        states.append(state)
    return torch.stack(states, dim=1)


def weigh(costs: Tensor, risk: float) -> Tensor:
    """The cost of plans from that of each of their futures.

    Args:
        costs: `(R, F)`.
        risk: 0 is neutral, above is averse.

    Returns:
        `(R,)`, the mean and `risk` standard deviations.
    """
    mean = costs.mean(1)
    return mean + risk * costs.var(1, unbiased=False).clamp_min(FAINT).sqrt() if risk else mean

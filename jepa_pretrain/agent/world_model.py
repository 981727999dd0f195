"""What a planner may ask of a world model: Pred(s_t, a_t, z_t) -> s_{t+1} (LeCun 2022, section 4.1).

A state is `(B, N, D)`, a plan `(B, L, A)` in the model's own units: where one model step stands for a block of several
steps of the environment, A = block * (action width of the environment), the actions of a block joined in order.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError


class Continuous(NamedTuple):
    """Actions between two finite bounds."""

    low: Tensor  # (A,)
    high: Tensor  # (A,)

    @property
    def width(self) -> int:
        """Numbers per model step, A."""
        return self.low.shape[0]


class Discrete(NamedTuple):
    """One of n choices; a plan holds their vectors, so that a model sees numbers either way."""

    choices: Tensor  # (n, A)

    @property
    def n(self) -> int:
        """Number of choices."""
        return self.choices.shape[0]

    @property
    def width(self) -> int:
        """Numbers per model step, A."""
        return self.choices.shape[1]

    @classmethod
    def one_hot(cls, n: int, block: int = 1) -> "Discrete":
        """n actions as unit vectors, each held for `block` steps of the environment.

        Args:
            n: number of actions.
            block: environment steps per model step.
        """
        return cls(torch.eye(n).repeat(1, block))


ActionSpace = Continuous | Discrete


@runtime_checkable
class WorldModel(Protocol):
    """Predicts states. `rollout` is `step` repeated; models may do it faster than one step at a time."""

    width: int  # D
    grid_tokens: int  # N, 1 for a pooled state
    action: ActionSpace
    block: int  # environment steps per model step
    frames: int  # pictures that make a state, a block apart

    def encode(self, frames: Tensor) -> Tensor:
        """Observations `(B, 3 * frames, H, W)` uint8, the picture of now last, -> states `(B, N, D)`."""
        ...

    def step(self, state: Tensor, action: Tensor, z: Tensor | None = None) -> Tensor:
        """`(B, N, D)`, `(B, A)`, latent `(B, Z)` or None -> the next state `(B, N, D)`."""
        ...

    def rollout(self, state: Tensor, plan: Tensor, z: Tensor | None = None) -> Tensor:
        """`(B, N, D)`, `(B, L, A)`, latents `(B, L, Z)` or None -> the L states after the first, `(B, L, N, D)`."""
        ...


class Imagined(NamedTuple):
    """What follows a plan."""

    states: Tensor  # (B, L, N, D)
    disagreement: Tensor | None  # (B, L) variance over the members of an ensemble; None for a single model


def unroll(model: WorldModel, state: Tensor, plan: Tensor, z: Tensor | None = None) -> Tensor:
    """A rollout made of single steps, for models that have no faster way.

    Args:
        model: only its `step` is called.
        state: `(B, N, D)`.
        plan: `(B, L, A)`.
        z: latents `(B, L, Z)`, or None.

    Returns:
        `(B, L, N, D)`.
    """
    states = []
    for i, action in enumerate(plan.unbind(1)):
        state = model.step(state, action, None if z is None else z[:, i])
        states.append(state)
    return torch.stack(states, dim=1)


class Ensemble(nn.Module):
    """Several world models of one representation: their mean predicts, their variance says how little they know.

    Args:
        models: two or more, of equal width, tokens, actions, block and frames; the first one encodes.

    Raises:
        UserError: fewer than two, or models that differ in shape.
    """

    def __init__(self, models: list[nn.Module]) -> None:
        super().__init__()
        if len(models) < 2:
            raise UserError(f"an ensemble needs two world models or more, found {len(models)}")
        kinds = {(one.width, one.grid_tokens, one.action.width, one.block, one.frames) for one in models}
        if len(kinds) > 1:
            told = "(width, tokens, action width, block, frames)"
            raise UserError(f"models of an ensemble differ in {told}: {sorted(kinds)}")
        self.models = nn.ModuleList(models)
        self.width, self.grid_tokens, self.block = models[0].width, models[0].grid_tokens, models[0].block
        self.frames = models[0].frames

    @property
    def action(self) -> ActionSpace:
        """The actions of the first model."""
        return self.models[0].action

    def encode(self, frames: Tensor) -> Tensor:
        """`(B, 3 * frames, H, W)` uint8 -> `(B, N, D)`, by the first model."""
        return self.models[0].encode(frames)

    def step(self, state: Tensor, action: Tensor, z: Tensor | None = None) -> Tensor:
        """The mean of the members' predictions, `(B, N, D)`."""
        return torch.stack([one.step(state, action, z) for one in self.models]).mean(0)

    def rollout(self, state: Tensor, plan: Tensor, z: Tensor | None = None) -> Tensor:
        """The mean of the members' futures, `(B, L, N, D)`; each follows its own states."""
        return self.imagine(state, plan, z).states

    def imagine(self, state: Tensor, plan: Tensor, z: Tensor | None = None) -> Imagined:
        """The same, with the members' variance: mean over tokens and width, `(B, L)`."""
        futures = torch.stack([one.rollout(state, plan, z) for one in self.models])  # (members, B, L, N, D)
        return Imagined(futures.mean(0), futures.var(0, unbiased=False).mean((-1, -2)))


def imagine(model: WorldModel, state: Tensor, plan: Tensor, z: Tensor | None = None) -> Imagined:
    """The states that follow a plan, and how much an ensemble's members disagree on them.

    Args:
        model: a world model, or an `Ensemble`.
        state: `(B, N, D)`.
        plan: `(B, L, A)`.
        z: latents `(B, L, Z)`, or None.
    """
    if isinstance(model, Ensemble):
        return model.imagine(state, plan, z)
    return Imagined(model.rollout(state, plan, z), None)

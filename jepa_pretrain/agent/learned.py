"""A trained world model as planners want it: with the actions of a block, and their bounds."""

import torch
from torch import Tensor, nn

from jepa_pretrain.agent.world_model import ActionSpace, Continuous, Discrete
from jepa_pretrain.models.world import World


class Learned(nn.Module):
    """`agent.world_model.WorldModel` of a trained `World`, without gradients of its own.

    Args:
        world: the trained model; it is frozen in place.
    """

    grid_tokens = 1

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world.eval().requires_grad_(False)
        self.width, self.block, self.image_size, self.frames = world.width, world.block, world.image_size, world.frames
        low, high = (torch.tensor(one).repeat(world.block) for one in (world.low, world.high))
        choices = world.dynamics.actions // world.block
        self.action: ActionSpace = Continuous(low, high) if world.low else Discrete.one_hot(choices, world.block)

    def train(self, mode: bool = True) -> "Learned":
        """Stays in evaluation mode, whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Observations `(B, 3 * frames, H, W)` uint8, the picture of now last, -> states `(B, 1, D)`."""
        return self.world.encode(frames)

    def step(self, state: Tensor, action: Tensor, z: Tensor | None = None) -> Tensor:
        """`(B, 1, D)`, `(B, A)`, `(B, Z)` -> the next state `(B, 1, D)`."""
        return self.world.step(state, action, z)

    def rollout(self, state: Tensor, plan: Tensor, z: Tensor | None = None) -> Tensor:
        """`(B, 1, D)`, `(B, L, A)`, `(B, L, Z)` -> `(B, L, 1, D)`."""
        return self.world.rollout(state, plan, z)

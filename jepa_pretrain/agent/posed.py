"""V-JEPA 2-AC as planners want it: one tensor is the state, so the robot's pose lies in it as one more token."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_pretrain.agent.world_model import ActionSpace, Continuous
from jepa_pretrain.contracts import UserError
from jepa_pretrain.models.action_world import ActionWorld

POSE = 7


class Posed(nn.Module):
    """`agent.world_model.WorldModel` of an `ActionWorld`; states are `(B, N + 1, D)`, the pose first in the last token.

    What is predicted from is the state alone, not what went before; a plan's own states are looked back on. In the
    goal's distance the pose counts as 7 of (N + 1) D numbers; with `at` the goal can be given a pose of its own.

    Args:
        world: the model; it is frozen in place.
        low: least change of each number of the pose per step, `(7,)`; Meta's planner searches within .05 m and .75 of
            the gripper, and does not turn the hand. Planners want it below `high`: -1e-6 for what must not change.
        high: largest change of each, `(7,)`.
    """

    block = frames = 1

    def __init__(self, world: ActionWorld, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.world = world.eval().requires_grad_(False)
        self.width, self.image_size = world.encoder.width, world.encoder.image_size
        self.grid_tokens = world.predictor.grid.h * world.predictor.grid.w + 1
        if self.width < POSE or tuple(low.shape) != (POSE,) or tuple(high.shape) != (POSE,):
            raise UserError(f"bounds have {POSE} numbers each, found {tuple(low.shape)} and {tuple(high.shape)}")
        self.action: ActionSpace = Continuous(low, high)

    def train(self, mode: bool = True) -> "Posed":
        """Stays in evaluation mode, whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames `(B, C, H, W)` uint8 -> states `(B, N + 1, D)`, at pose 0; `at` says where the robot is."""
        tokens = self.world.encode(frames.unsqueeze(2))[:, 0]
        return torch.cat([tokens, tokens.new_zeros(len(tokens), 1, self.width)], dim=1)

    def at(self, state: Tensor, pose: Tensor) -> Tensor:
        """The state `(B, N + 1, D)` with the robot at `pose` `(B, 7)`."""
        return torch.cat([state[:, :-1], self._token(pose).unsqueeze(1)], dim=1)

    def step(self, state: Tensor, action: Tensor, z: Tensor | None = None) -> Tensor:
        """`(B, N + 1, D)`, `(B, 7)` -> the next state `(B, N + 1, D)`; it has no latent variable."""
        return self.rollout(state, action.unsqueeze(1), z)[:, 0]

    def rollout(self, state: Tensor, plan: Tensor, z: Tensor | None = None) -> Tensor:
        """`(B, N + 1, D)`, `(B, L, 7)` -> `(B, L, N + 1, D)`."""
        if z is not None:
            raise UserError("V-JEPA 2-AC has no latent variable")
        states, poses = self.world.rollout(state[:, None, :-1], state[:, -1:, :POSE], plan)
        return torch.cat([states, self._token(poses).unsqueeze(2)], dim=2)

    def _token(self, pose: Tensor) -> Tensor:
        """`(..., 7)` -> `(..., D)`."""
        return F.pad(pose, (0, self.width - POSE))

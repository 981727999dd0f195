"""V-JEPA 2-AC as a world model: frames to states, and what follows a plan of a robot's actions.

A state is the layer-normed tokens of one frame (section 3.1 of https://arxiv.org/abs/2506.09985). A pose is x, y, z,
three Euler angles (about the fixed x, y and z axes, in this order, radians) and how far the gripper is closed, 0 to 1;
an action is the change of each.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.models.action_predictor import ActionPredictor


class ActionWorld(nn.Module):
    """An encoder of clips that is shown single frames, and the predictor that acts on its tokens.

    Args:
        encoder: clips to tokens; a frame is shown to it as one tubelet of the same frame.
        predictor: on the encoder's width, and its rows and columns.
    """

    def __init__(self, encoder: nn.Module, predictor: ActionPredictor) -> None:
        super().__init__()
        if predictor.config["encoder_width"] != encoder.width or predictor.grid[1:] != encoder.grid[1:]:
            raise UserError(
                f"the predictor is on {predictor.grid[1:]} tokens of width {predictor.config['encoder_width']}, "
                f"the encoder gives {encoder.grid[1:]} of width {encoder.width}"
            )
        self.encoder, self.predictor = encoder, predictor
        self.tubelet = encoder.config["tubelet"]

    def encode(self, frames: Tensor) -> Tensor:
        """Frames `(B, C, T, H, W)`, uint8 or float in 0..1, each by itself, to states `(B, T, N, D)`."""
        still = frames.transpose(1, 2).flatten(0, 1).unsqueeze(2).expand(-1, -1, self.tubelet, -1, -1)
        tokens = self.encoder(still)  # (B T, N, D)
        return F.layer_norm(tokens, tokens.shape[-1:]).unflatten(0, (len(frames), -1))

    def rollout(
        self, states: Tensor, poses: Tensor, plan: Tensor, extrinsics: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict on from predictions.

        Args:
            states: `(B, T, N, D)`, what was seen up to now.
            poses: `(B, T, 7)`, where the robot was then.
            plan: `(B, T - 1 + H, 7)`: the actions that were taken, and H that are to be.
            extrinsics: `(B, T - 1 + H, 6)`, the camera's places, for a model that has them.

        Returns:
            The H states that follow, `(B, H, N, D)`, and the poses, `(B, H, 7)`.
        """
        given, end = states.shape[1], plan.shape[1]
        if end < given:
            raise UserError(f"after {given} frames a plan has {given} actions or more, found {end}")
        for now in range(given, end + 1):
            first = max(0, now - self.predictor.grid.t)  # what the predictor can look back on
            camera = None if extrinsics is None else extrinsics[:, first:now]
            following = self.predictor(states[:, first:now], plan[:, first:now], poses[:, first:now], camera)[:, -1:]
            states = torch.cat([states, F.layer_norm(following, following.shape[-1:])], dim=1)
            poses = torch.cat([poses, moved(poses[:, -1:], plan[:, now - 1 : now])], dim=1)
        return states[:, given:], poses[:, given:]


def moved(pose: Tensor, action: Tensor) -> Tensor:
    """The pose after an action, `(..., 7)`: the action's turn comes after the pose's, the gripper stays within 0..1."""
    place = pose[..., :3] + action[..., :3]
    angles = _angles(_matrix(action[..., 3:6]) @ _matrix(pose[..., 3:6]))
    return torch.cat([place, angles, (pose[..., 6:] + action[..., 6:]).clamp(0, 1)], dim=-1)


def _matrix(angles: Tensor) -> Tensor:
    """Turns about the fixed x, y and z axes, in this order: `(..., 3)` -> `(..., 3, 3)`."""
    (a, b, c), (x, y, z) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = (
        (b * c, x * y * c - a * z, a * y * c + x * z),
        (b * z, x * y * z + a * c, a * y * z - x * c),
        (-y, x * b, a * b),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _angles(matrix: Tensor) -> Tensor:
    """The same backwards; the second angle is within a quarter turn."""
    first = torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2])
    second = torch.asin(-matrix[..., 2, 0].clamp(-1, 1))
    third = torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0])
    return torch.stack([first, second, third], dim=-1)

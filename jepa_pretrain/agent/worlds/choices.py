"""A flat world with four actions: a step to the right, left, down or up."""

from typing import Any

import gymnasium as gym
import numpy as np

from jepa_pretrain.agent.worlds.ground import Ground, Single

MOVES = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


class Choices(Single):
    """`Single` with a choice in place of two numbers.

    Args:
        world: class of the world.
        render_mode: only `rgb_array`.
        size: height and width of pictures, pixels.
        settings: further arguments of the world.
    """

    def __init__(self, world: type[Ground], render_mode: str = "rgb_array", size: int = 64, **settings: Any) -> None:
        super().__init__(world, render_mode, size, **settings)
        self.action_space = gym.spaces.Discrete(len(MOVES))

    def step(self, action):
        """One step by the number of its move."""
        return super().step(MOVES[int(action)])


def nearest(wanted: np.ndarray) -> np.ndarray:
    """The moves that lead where steps (B, 2) would, as rows of one, (B, 4) float32."""
    return np.eye(len(MOVES), dtype=np.float32)[(wanted @ MOVES.T).argmax(1)]

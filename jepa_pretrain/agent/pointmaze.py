"""gymnasium-robotics' `PointMaze_*` as an agent's world: it can be put at its goal, and does not draw where that is.

A ball is pushed by forces through a maze. Its own reset knows cells only; here the options `state` and `target_state`
are places, as in the worlds of this package, and what it tells begins with the places of ball and goal. The red mark at
the goal is made invisible: pictures are to show the state alone, and are compared with one that is taken at the goal.
They are taken from above and near, where the ball is some pixels wide.
"""

from typing import Any

import gymnasium as gym
import numpy as np

SIGHT = 1.0  # of the camera, in widths of the maze: all of it is seen
REACH = 0.45  # how near is there, by the environment's own rule


class Placed(gym.Wrapper):
    """One maze.

    Args:
        env: `PointMaze_*`.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        maze = self.unwrapped.maze
        distance = SIGHT * max(maze.map_length, maze.map_width) * maze.maze_size_scaling
        camera = {"distance": distance, "azimuth": 90.0, "elevation": -90.0, "lookat": np.zeros(3)}
        self.unwrapped.point_env.mujoco_renderer.default_cam_config = camera

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode; options `state` and `target_state` are places `(2,)`, drawn where they are not given."""
        _, info = self.env.reset(seed=seed)
        maze, given = self.unwrapped, options or {}
        if "target_state" in given:
            maze.goal = np.asarray(given["target_state"], np.float64)
            maze.update_target_site_pos()
        maze.point_env.model.site_rgba[maze.target_site_id, 3] = 0.0
        place = np.asarray(given.get("state", maze.data.qpos[:2]), np.float64)
        maze.point_env.set_state(place, np.zeros(2))
        return self._told(info)

    def step(self, action):
        """One step; the state told is that of the maze."""
        _, reward, terminated, truncated, info = self.env.step(action)
        told, info = self._told(info)
        return told, reward, terminated, truncated, info

    def _told(self, info: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        """Place, goal and speed `(6,)`; the body feels place and speed."""
        maze = self.unwrapped
        place, speed = maze.data.qpos[:2], maze.data.qvel[:2]
        whole = np.concatenate([place, maze.goal, speed]).astype(np.float32)
        return whole, info | {"proprio": np.concatenate([place, speed]).astype(np.float32)}

"""gymnasium-robotics' `PointMaze_*` as an agent's world: it can be put at its goal, and does not draw where that is.

A ball is pushed by forces through a maze. Its own reset knows cells only; here the options `state` and `target_state`
are places, as in the worlds of this package, and what it tells begins with the places of ball and goal. The red mark at
the goal is made invisible: pictures are to show the state alone, and are compared with one that is taken at the goal.
They are taken from above and near, where the ball is some pixels wide, and drawn at the size that is wanted, without
sky, haze and mirrors: on a machine without a GPU that is eight times quicker than the maze's own 480 pixels made small.
"""

from typing import Any
from weakref import WeakValueDictionary

import gymnasium as gym
import numpy as np

VIEW = 0.83  # width that a camera sees from a distance of one
RIM = 0.25  # cells of the outer wall that are seen; the maze counts a whole one on either side
REACH = 0.45  # how near is there, by the environment's own rule


class Placed(gym.Wrapper):
    """One maze.

    Args:
        env: `PointMaze_*`.
        size: Height and width of its pictures, pixels.
    """

    def __init__(self, env: gym.Env, size: int) -> None:
        super().__init__(env)
        self.size, self._drawing = size, None

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

    def render(self) -> np.ndarray:
        """The maze from above, `(size, size, 3)` uint8."""
        if self._drawing is None:
            self._drawing = self._shared()
        return self._drawing(self.unwrapped.point_env.data)

    def _shared(self) -> "Drawing":
        """What draws, made at the first picture, as that takes a third of a second; mazes that are alike share it."""
        maze, point = self.unwrapped.maze, self.unwrapped.point_env
        key = (str(maze.maze_map), maze.maze_size_scaling, self.size)
        found = DRAWINGS.get(key)
        if found is None:
            wide = (max(maze.map_length, maze.map_width) - 2 * (1 - RIM)) * maze.maze_size_scaling
            found = DRAWINGS[key] = Drawing(point.model, wide / VIEW, self.size)
        return found

    def _told(self, info: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        """Place, goal and speed `(6,)`; the body feels place and speed."""
        maze = self.unwrapped
        place, speed = maze.data.qpos[:2], maze.data.qvel[:2]
        whole = np.concatenate([place, maze.goal, speed]).astype(np.float32)
        return whole, info | {"proprio": np.concatenate([place, speed]).astype(np.float32)}


class Drawing:
    """MuJoCo's renderer, and where it looks from.

    Args:
        model: Of the maze; any like it is drawn.
        distance: Of the camera above it.
        size: Height and width of pictures, pixels.
    """

    def __init__(self, model: Any, distance: float, size: int) -> None:
        import mujoco

        self.camera = mujoco.MjvCamera()
        self.camera.distance, self.camera.azimuth, self.camera.elevation = distance, 90.0, -90.0
        self.renderer = mujoco.Renderer(model, size, size)
        flags = mujoco.mjtRndFlag
        for one in (flags.mjRND_SKYBOX, flags.mjRND_HAZE, flags.mjRND_REFLECTION, flags.mjRND_SHADOW):
            self.renderer.scene.flags[one] = 0  # not worth their time

    def __call__(self, data: Any) -> np.ndarray:
        """The picture of a maze in the state that its MuJoCo data tell."""
        self.renderer.update_scene(data, self.camera)
        return self.renderer.render()


DRAWINGS: WeakValueDictionary[tuple, Drawing] = WeakValueDictionary()  # of the mazes there are in this process

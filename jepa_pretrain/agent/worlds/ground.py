"""What flat worlds share: many discs on the unit square, one step at a time, seen from above.

A world is a set of arrays, one row per episode, so that one numpy call moves, or draws, all of them. A single
environment is the same world with one row.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy import ndarray as Array

from jepa_pretrain.contracts import UserError

RADIUS = 0.03  # of the agent, where it touches walls
DRAWN = 0.045  # of the same in pictures, so that few pixels show it well
SPEED = 0.05  # of an action of length 1, per step
NEAR = 0.06  # a goal is reached within this distance
Options = dict[str, Any]


class Ground(ABC):
    """Episodes on the unit square; x to the right, y downwards.

    Args:
        count: episodes (B).
        motor: factor on every action; negative mirrors the controls. A change of dynamics, for learning from surprise.
    """

    size: ClassVar[int]  # of the state

    def __init__(self, count: int, motor: tuple[float, float] = (1.0, 1.0)) -> None:
        self.count, self.usual_motor = count, np.asarray(motor, dtype=np.float64)
        self.motor = np.tile(self.usual_motor, (count, 1))  # (B, 2), of each episode
        self.agent, self.goal = np.zeros((count, 2)), np.zeros((count, 2))
        self.rngs = [np.random.default_rng(0) for _ in range(count)]

    @abstractmethod
    def begin(self, row: int, options: Options) -> None:
        """Draws a new episode from `self.rngs[row]`; `options` may give `state` (2,) and `target_state` (2,)."""

    @abstractmethod
    def move(self, wanted: Array) -> None:
        """Moves everything by a step; `wanted` (B, 2) is how far each agent would go."""

    @abstractmethod
    def state(self) -> Array:
        """(B, S) the whole truth; agent and goal come first."""

    @abstractmethod
    def paint(self, size: int) -> Array:
        """(B, size, size, 3) uint8."""

    def reset(self, rows: Array, seeds: list[int | None], options: list[Options]) -> None:
        """Starts episodes.

        Args:
            rows: which ones.
            seeds: of each; None goes on with the generator that is there.
            options: of each; beside those of `begin`, `motor` (2,) changes the dynamics of this episode.
        """
        for row, seed, own in zip(rows, seeds, options, strict=True):
            if seed is not None:
                self.rngs[row] = np.random.default_rng(seed)
            self.motor[row] = _motor(own, self.usual_motor)
            self.begin(int(row), own)

    def step(self, actions: Array) -> Array:
        """One step of all episodes: actions (B, 2) in -1..1 -> which goals are reached, (B,) bool."""
        self.move(np.clip(actions, -1.0, 1.0) * self.motor * SPEED)
        return self.reached()

    def reached(self) -> Array:
        """(B,) bool."""
        return np.linalg.norm(self.agent - self.goal, axis=1) < NEAR


def _motor(options: Options, usual: Array) -> Array:
    """Factors on both action numbers that the options give, or else the usual ones."""
    given = np.asarray(options.get("motor", usual), dtype=np.float64)
    if given.shape != (2,) or not np.isfinite(given).all():
        raise UserError(f"the option motor is a factor for each of two actions, found {options.get('motor')}")
    return given


def place(options: Options, name: str, drawn: Array) -> Array:
    """A place that the options give, or else the drawn one.

    Raises:
        UserError: it is no place on the unit square.
    """
    given = np.asarray(options.get(name, drawn), dtype=np.float64).reshape(-1)[:2]
    if given.shape != (2,) or not ((given >= 0) & (given <= 1)).all():
        raise UserError(f"the option {name} is a place (x, y) with both in 0..1, found {options.get(name)}")
    return given


def disc(picture: Array, centre: Array, radius: float, colour: tuple[int, int, int], rows: Array | None = None) -> None:
    """Paints a disc with a soft rim into pictures (B, S, S, 3) float: a centre (B, 2) each, where `rows` (B,) says."""
    size = picture.shape[1]
    at = (np.arange(size) + 0.5) / size
    gap = np.hypot(at[None, None, :] - centre[:, 0, None, None], at[None, :, None] - centre[:, 1, None, None])
    cover = np.clip((radius - gap) * size + 0.5, 0, 1)[..., None]  # (B, S, S, 1)
    if rows is not None:
        cover = cover * rows[:, None, None, None]
    picture += cover * (np.asarray(colour, dtype=np.float64) - picture)


class Single(gym.Env):
    """One episode at a time, for Gymnasium.

    Args:
        world: class of the world.
        render_mode: only `rgb_array`.
        size: height and width of pictures, pixels.
        settings: further arguments of the world, such as `shut=1.0`; an unknown one is refused there.
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, world: type[Ground], render_mode: str = "rgb_array", size: int = 64, **settings: Any) -> None:
        self.world, self.render_mode, self.size = world(1, **settings), render_mode, size
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (world.size,), np.float32)

    def reset(self, *, seed: int | None = None, options: Options | None = None):
        """Starts an episode; `options`: `state` and `target_state`, places (x, y) in 0..1."""
        super().reset(seed=seed)
        self.world.reset(np.arange(1), [seed], [options or {}])
        return self._seen(), self._told(False)

    def step(self, action):
        """One step; `terminated` once the goal is reached."""
        reached = bool(self.world.step(np.asarray(action, dtype=np.float64)[None])[0])
        return self._seen(), float(reached), reached, False, self._told(reached)

    def render(self) -> Array:
        """The picture, (size, size, 3) uint8."""
        return self.world.paint(self.size)[0]

    def _seen(self) -> Array:
        return self.world.state()[0].astype(np.float32)

    def _told(self, reached: bool) -> dict[str, Any]:
        return {"success": reached, "proprio": self.world.agent[0].astype(np.float32), "state": self._seen()}


class Many(gym.vector.VectorEnv):
    """Many episodes at once, for `gymnasium.make_vec`; an episode that is over begins anew with the next step.

    Args:
        world: class of the world.
        num_envs: episodes.
        render_mode: only `rgb_array`.
        size: height and width of pictures, pixels.
        settings: further arguments of the world.
    """

    metadata: ClassVar = {
        "render_modes": ["rgb_array"],
        "render_fps": 10,
        "autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self, world: type[Ground], num_envs: int = 1, render_mode: str = "rgb_array", size: int = 64, **settings: Any
    ) -> None:
        self.world, self.render_mode, self.size, self.num_envs = (
            world(num_envs, **settings),
            render_mode,
            size,
            num_envs,
        )
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (world.size,), np.float32)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self._over = np.zeros(num_envs, dtype=bool)

    def reset(self, *, seed: int | list[int | None] | None = None, options: Options | None = None):
        """Starts all episodes; a seed s means s, s + 1, ...; `options["each"]` holds one dictionary per episode."""
        seeds = seed if isinstance(seed, list) else [None if seed is None else seed + n for n in range(self.num_envs)]
        each = (options or {}).get("each") or [options or {}] * self.num_envs
        self.world.reset(np.arange(self.num_envs), seeds, each)
        self._over[:] = False
        return self._seen(), {"proprio": self.world.agent.astype(np.float32)}

    def step(self, actions):
        """One step; episodes that were over begin anew instead."""
        again = np.flatnonzero(self._over)
        kept = ~self._over
        reached = self.world.step(np.asarray(actions, dtype=np.float64) * kept[:, None]) & kept
        self.world.reset(again, [None] * len(again), [{}] * len(again))
        self._over = reached
        none = np.zeros(self.num_envs, dtype=bool)
        told = {"success": reached, "proprio": self.world.agent.astype(np.float32)}
        return self._seen(), reached.astype(np.float64), reached.copy(), none, told

    def render(self) -> tuple[Array, ...]:
        """A picture per episode."""
        return tuple(self.world.paint(self.size))

    def _seen(self) -> Array:
        return self.world.state().astype(np.float32)

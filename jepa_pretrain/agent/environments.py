"""Gymnasium environments, many at once, as an agent sees them: pictures when it looks, vectors at every step.

Any id that Gymnasium knows will do; nothing is asked of an environment but that it renders. Rendering is the dear part
of most, so pictures are made when `pictures` is called and never in `step`. An episode that is over waits for the next
reset without being stepped, and one whose environment throws is over and `failed`, with the reason.
"""

import importlib
import os
import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jepa_pretrain.agent.pointmaze import Placed
from jepa_pretrain.contracts import UserError

try:
    import gymnasium as gym
    from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
except ImportError as error:
    raise UserError(f"environments need Gymnasium: pip install 'jepa-pretrain[agent]' ({error})") from None

# importing one of these registers its ids
HOMES = {"swm/": "stable_worldmodel", "gym_pusht/": "gym_pusht", "PointMaze": "gymnasium_robotics",
         "jepa_pretrain/": "jepa_pretrain.agent.worlds"}  # fmt: skip
HEADLESS = {"MUJOCO_GL": "egl", "SDL_VIDEODRIVER": "dummy"}
# what a stranger's environment may raise in the midst of an episode
THROWN = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError,
          gym.error.Error)  # fmt: skip
Options = dict[str, Any]


class Seen(NamedTuple):
    """What all environments show after a reset or a step, beside their pictures."""

    proprio: Tensor  # (B, P) float32, what the body feels; width 0 where the environment tells nothing
    state: Tensor  # (B, S) float32, the whole truth as far as the environment tells it; width 0 likewise
    reward: Tensor  # (B,) float32 of the last step
    running: Tensor  # (B,) bool, False once the episode is over
    reached: Tensor  # (B,) bool, the episode ended by reaching its goal
    failed: Tensor  # (B,) bool, the environment threw an error


class Actions(NamedTuple):
    """What can be done. A discrete choice is a one-hot row, so that actions are always rows of numbers."""

    width: int  # A
    low: Tensor  # (A,)
    high: Tensor  # (A,)
    discrete: bool


def described(actions: Actions) -> dict[str, Any]:
    """The same as plain data, as recordings carry it: width and, unless they are choices, bounds."""
    bounds = {} if actions.discrete else {"low": actions.low.tolist(), "high": actions.high.tolist()}
    return {"width": actions.width} | bounds


class Viewed(gym.Wrapper):
    """One environment: float vectors out, pictures on demand, no exception, no step behind the end.

    Args:
        env: The environment.
        number: Its place among its like.
        size: Height and width of its pictures, pixels.
    """

    def __init__(self, env: gym.Env, number: int, size: int) -> None:
        super().__init__(env)
        self.number, self.size, self.fault, self._over = number, size, "", False
        self._last: dict[str, np.ndarray] = {}
        self._picture: np.ndarray | None = None
        self.reset(seed=0)
        if self.fault:
            raise UserError(f"{env.spec.id} throws at its first reset: {self.fault}")
        box = {name: gym.spaces.Box(-np.inf, np.inf, one.shape, np.float32) for name, one in self._last.items()}
        self.observation_space = gym.spaces.Dict(box)

    def reset(self, *, seed: int | None = None, options: Options | None = None):
        """Starts an episode; `options["each"]` holds the options of every environment, by its number."""
        own = options["each"][self.number] if options and "each" in options else options
        self.fault, self._over, self._picture = "", False, None
        try:
            observation, info = self.env.reset(seed=seed, options=own)
            self._last = _vectors(observation, info)
        except THROWN as error:
            self._fail(error)
        return self._seen(False), {}

    def step(self, action):
        """Steps an episode that goes on; the vector API never hears of an end, since it would reset by itself."""
        reached, reward = False, 0.0
        if not self._over:
            self._picture = None
            try:
                observation, reward, terminated, truncated, info = self.env.step(action)
                self._last = _vectors(observation, info)
                reached, self._over = bool(info.get("success", terminated)), bool(terminated or truncated)
                self._over |= reached
            except THROWN as error:
                self._fail(error)
        return self._seen(reached), float(reward), False, False, {}

    def render(self) -> np.ndarray:
        """The picture (H, W, 3) uint8 at the wanted size; drawn once, however often it is asked for."""
        if self._picture is None:
            try:
                self._picture = self._resized(np.asarray(self.env.render()))
            except THROWN as error:
                self._fail(error)
                self._picture = np.zeros((self.size, self.size, 3), np.uint8)
        return self._picture

    def _resized(self, frame: np.ndarray) -> np.ndarray:
        if frame.shape[:2] == (self.size, self.size):
            return frame
        return np.asarray(Image.fromarray(frame).resize((self.size, self.size), Image.Resampling.BILINEAR))

    def _fail(self, error: Exception) -> None:
        self.fault, self._over = f"{type(error).__name__}: {error}", True

    def _seen(self, reached: bool) -> dict[str, np.ndarray]:
        flags = np.asarray([not self._over, reached, bool(self.fault)], np.float32)
        return {"proprio": np.zeros(0, np.float32), "state": np.zeros(0, np.float32)} | self._last | {"flags": flags}


def _vectors(observation: Any, info: dict[str, Any]) -> dict[str, np.ndarray]:
    """Proprioception and state, out of what environments call them.

    The state is a flat observation, or a dict's `observation`, or else what `info` says; proprioception likewise, but
    `info` is asked first, since an observation may tell more than a body can feel.
    """
    whole = observation.get("observation", np.zeros(0)) if isinstance(observation, dict) else observation
    whole = _flat(whole)
    state = whole if whole.size else _flat(info.get("state", ()))
    return {"proprio": _flat(info["proprio"]) if "proprio" in info else state, "state": state,
            "flags": np.zeros(3, np.float32)}  # fmt: skip


def _flat(value: Any) -> np.ndarray:
    """A vector as it is; anything else, a picture say, is none."""
    array = np.asarray(value, dtype=np.float32)
    return array.copy() if array.ndim == 1 else np.zeros(0, np.float32)


class Environments:
    """Several copies of one environment.

    Args:
        name: Gymnasium id, such as `swm/TwoRoom-v1` or `CartPole-v1`.
        count: How many (B).
        size: Height and width of their pictures, pixels.
        vector: `sync` steps them one after the other in this process, `async` each in a process of its own.

    Raises:
        UserError: No such id, its package is missing, it does not render, or its actions are of another kind than
            numbers in bounds or one choice out of several.
    """

    def __init__(self, name: str, count: int, size: int = 64, vector: Literal["sync", "async"] = "sync") -> None:
        _prepare(name)
        self.name, self.count, self.size = name, count, size
        self.actions = _actions(name, _make(name, 0, size).action_space)
        makers = [lambda number=number: _make(name, number, size) for number in range(count)]
        kind = SyncVectorEnv if vector == "sync" else AsyncVectorEnv
        self._all = kind(makers, autoreset_mode=AutoresetMode.DISABLED)

    def reset(self, seeds: list[int], options: list[Options] | None = None) -> Seen:
        """Starts an episode everywhere.

        Args:
            seeds: One per environment.
            options: Reset options of each, such as `{"state": ..., "target_state": ...}` where it knows these.
        """
        seen, _ = self._all.reset(seed=[seed % 2**31 for seed in seeds], options={"each": options} if options else None)
        return self._read(seen, np.zeros(self.count))

    def step(self, actions: Tensor) -> Seen:
        """One step everywhere.

        Args:
            actions: `(B, A)`; numbers are clipped to their bounds, of a choice the largest is taken.
        """
        if self.actions.discrete:
            taken = actions.argmax(1).numpy()
        else:
            taken = actions.clamp(self.actions.low, self.actions.high).numpy().astype(np.float32)
        seen, reward, *_ = self._all.step(taken)
        return self._read(seen, reward)

    def pictures(self) -> Tensor:
        """What all of them look like now: `(B, 3, H, W)` uint8."""
        return torch.from_numpy(np.stack(self._all.call("render"))).permute(0, 3, 1, 2).contiguous()

    def faults(self) -> list[str]:
        """Why each of them failed; empty where it did not."""
        return list(self._all.get_attr("fault"))

    def close(self) -> None:
        """Ends them."""
        self._all.close()

    def _read(self, seen: dict[str, np.ndarray], reward: np.ndarray) -> Seen:
        proprio, state, flags = (torch.from_numpy(seen[key].copy()) for key in ("proprio", "state", "flags"))
        return Seen(proprio, state, torch.as_tensor(reward, dtype=torch.float32), *flags.bool().unbind(1))


def _prepare(name: str) -> None:
    """Imports the package that an id belongs to, without its chatter."""
    for key, value in HEADLESS.items():
        os.environ.setdefault(key, value)
    gym.logger.min_level = gym.logger.ERROR
    warnings.filterwarnings("ignore", module=r"gymnasium\.|stable_worldmodel|gym_pusht|pygame|pkg_resources")
    home = next((module for start, module in HOMES.items() if name.startswith(start)), None)
    if home is None:
        return
    try:
        importlib.import_module(home)
    except ImportError as error:
        raise UserError(f"{name} needs {home}: pip install 'jepa-pretrain[agent]' ({error})") from None
    if home == "gymnasium_robotics":
        gym.register_envs(importlib.import_module(home))


def _make(name: str, number: int, size: int) -> Viewed:
    try:
        env = gym.make(name, render_mode="rgb_array", disable_env_checker=True)
        return Viewed(Placed(env, size) if name.startswith("PointMaze") else env, number, size)
    except gym.error.DependencyNotInstalled as error:
        raise UserError(f"{name} lacks a package: pip install 'jepa-pretrain[agent]' ({error})") from None
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise UserError(f"no environment {name!r}: {str(error).splitlines()[0]}") from None


def _actions(name: str, space: gym.Space) -> Actions:
    if isinstance(space, gym.spaces.Discrete):
        return Actions(int(space.n), torch.zeros(int(space.n)), torch.ones(int(space.n)), True)
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1 and np.isfinite([space.low, space.high]).all():
        return Actions(space.shape[0], *(torch.as_tensor(one).float() for one in (space.low, space.high)), False)
    raise UserError(f"{name} has actions {space}: only numbers in bounds, or one choice of several, will do")

"""A small world of our own: a bright square that the action moves on a black floor; it throws where it is told to."""

import gymnasium as gym
import numpy as np

NAME = "Toy-v0"


class Toy(gym.Env):
    """Position in [0, 1]^2, moved by up to .1; ends within .1 of the target, which options may set."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None, space=None, throw_at=None, throw_seeds=()):
        self.render_mode, self.throw_at, self.throw_seeds = render_mode, throw_at, throw_seeds
        self.action_space = space or gym.spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = gym.spaces.Box(0, 1, (4,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        drawn = self.np_random.uniform(0, 1, (2, 2))
        options = options or {}
        self.place = np.asarray(options.get("state", drawn[0]), np.float32)
        self.target = np.asarray(options.get("target_state", drawn[1]), np.float32)
        self.steps, self.throws = 0, seed in self.throw_seeds
        return self._seen(), {"proprio": self.place}

    def step(self, action):
        self.steps += 1
        if self.throws and self.steps == self.throw_at:
            raise RuntimeError("the floor gave way")
        push = np.eye(4, 2)[action] if isinstance(self.action_space, gym.spaces.Discrete) else np.asarray(action)
        self.place = (self.place + 0.1 * push).clip(0, 1).astype(np.float32)
        return self._seen(), 0.0, bool(np.linalg.norm(self.place - self.target) < 0.1), False, {"proprio": self.place}

    def render(self):
        frame = np.zeros((32, 32, 3), np.uint8)
        column, row = (self.place * 27).astype(int)
        frame[row : row + 5, column : column + 5] = 255
        return frame

    def _seen(self):
        return np.concatenate([self.place, self.target]).astype(np.float32)


class Rolling(Toy):
    """The square rolls on, the action only pushes; it is thrown back where it meets the edge. It feels its speed."""

    def reset(self, *, seed=None, options=None):
        self.speed = np.zeros(2, np.float32)
        super().reset(seed=seed, options=options)
        return self._felt()

    def step(self, action):
        self.speed = (self.speed + 0.02 * np.asarray(action)).clip(-0.1, 0.1).astype(np.float32)
        wanted = self.place + self.speed
        self.place = wanted.clip(0, 1).astype(np.float32)
        self.speed = np.where(wanted == self.place, self.speed, -self.speed)
        seen, told = self._felt()
        return seen, 0.0, False, False, told

    def _felt(self):
        return self._seen(), {"proprio": np.concatenate([self.place, self.speed])}


def register():
    """Makes the world known to Gymnasium, once."""
    for name, options in {
        NAME: {},
        "ToyChoice-v0": {"space": gym.spaces.Discrete(4)},
        "ToyOdd-v0": {"space": gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)},
        "ToyThrows-v0": {"throw_at": 3, "throw_seeds": Odd()},
        "ToyAlways-v0": {"throw_at": 1, "throw_seeds": range(1, 2**31)},
    }.items():
        if name not in gym.registry:
            gym.register(name, Toy, kwargs=options)
    if "ToyRolls-v0" not in gym.registry:
        gym.register("ToyRolls-v0", Rolling)


class Odd:
    """All odd seeds."""

    def __contains__(self, seed):
        return seed is not None and seed % 2 == 1

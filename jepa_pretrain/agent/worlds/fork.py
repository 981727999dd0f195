"""A short way that chance makes dangerous, and a long one that is safe.

A block of rock lies between start and goal. A bridge leads straight across; in its middle, once in an episode, a gust
may throw whoever stands there into the pit below, out of which one climbs slowly. The way around is twice as long. On
average the bridge is quicker, but only the way around always arrives in time: a planner that knows just the mean of
what may happen takes the bridge, one that counts the spread too goes around.
"""

import numpy as np
from numpy import ndarray as Array

from jepa_pretrain.agent.worlds.ground import DRAWN, RADIUS, SPEED, Ground, Options, disc, place

START, GOAL = np.array([0.1, 0.5]), np.array([0.9, 0.5])
ROCK = (0.25, 0.75, 0.14, 0.86)  # left, right, top, bottom
BRIDGE = (0.44, 0.56)  # top and bottom of the bridge across the rock
GUST = (0.47, 0.53)  # left and right of where it blows
PIT = (0.44, 0.56, 0.55, 0.74)  # left, right, top, bottom; its only way out leads up to the bridge
BOTTOM = np.array([0.5, 0.7])
LANES = np.array([0.5, 0.07, 0.93])  # y of the bridge, and of the ways above and below the rock
SIDES = (0.17, 0.83)  # x of the mouths of all three
CLIMB = 0.1  # factor on speed in the pit
COLOURS = {"rock": (110, 110, 110), "bridge": (230, 210, 170), "pit": (60, 40, 90), "agent": (220, 30, 30)}


class Chasm(Ground):
    """The world of `Fork-v0`; its state is agent (2), goal (2), and whether the gust has been passed or has blown (1).

    Args:
        count: episodes (B).
        motor: factor on every action, see `Ground`.
        risk: probability that the gust throws one down.
        anywhere: for recordings: start and goal lie anywhere around the rock, far apart, and whoever reaches one is
            given another, before which the gust may blow again. Recordings that all begin and end in the same places
            tell little of what lies between, and where the lucky ones end early, long stretches tell of the others.
    """

    size = 5

    def __init__(
        self, count: int, motor: tuple[float, float] = (1.0, 1.0), risk: float = 0.3, anywhere: bool = False
    ) -> None:
        super().__init__(count, motor)
        self.risk, self.anywhere, self.met = risk, anywhere, np.zeros(count, dtype=bool)

    def begin(self, row: int, options: Options) -> None:
        rng = self.rngs[row]
        start = around(rng) if self.anywhere else START + rng.uniform(-0.02, 0.02, 2)
        goal = around(rng, start) if self.anywhere else GOAL
        self.agent[row] = place(options, "state", start)
        self.goal[row] = place(options, "target_state", goal)
        self.met[row] = False

    def step(self, actions: Array) -> Array:
        reached = super().step(actions)
        if not self.anywhere:
            return reached
        for row in np.flatnonzero(reached):
            self.goal[row], self.met[row] = around(self.rngs[row], self.agent[row]), False
        return np.zeros_like(reached)

    def move(self, wanted: Array) -> None:
        inside = within(self.agent, PIT)
        wanted = wanted * np.where(inside, CLIMB, 1.0)[:, None]
        for axis in (0, 1):
            there = self.agent.copy()
            there[:, axis] = np.clip(there[:, axis] + wanted[:, axis], RADIUS, 1 - RADIUS)
            self.agent = np.where(self._solid(there, inside)[:, None], self.agent, there)
        blown = np.array([rng.random() for rng in self.rngs]) < self.risk
        here = within(self.agent, (*GUST, *BRIDGE)) & ~self.met
        self.met |= here
        self.agent = np.where((here & blown)[:, None], BOTTOM, self.agent)

    def _solid(self, at: Array, climbing: Array) -> Array:
        """Whether places (B, 2) are rock, (B,); the pit can be left, but not walked into."""
        on_bridge = (at[:, 1] > BRIDGE[0] + RADIUS / 2) & (at[:, 1] < BRIDGE[1] - RADIUS / 2)
        shaft = climbing & within(at, (PIT[0], PIT[1], BRIDGE[0], PIT[3]))
        return within(at, ROCK, RADIUS) & ~on_bridge & ~shaft

    def state(self) -> Array:
        return np.concatenate([self.agent, self.goal, self.met[:, None]], axis=1)

    def paint(self, size: int) -> Array:
        picture = np.full((size, size, 3), 255.0)
        at = (np.arange(size) + 0.5) / size
        x, y = np.meshgrid(at, at)
        bridge = (ROCK[0], ROCK[1], BRIDGE[0], BRIDGE[1])
        for box, name in ((ROCK, "rock"), (PIT, "pit"), (bridge, "bridge")):
            picture[(x > box[0]) & (x < box[1]) & (y > box[2]) & (y < box[3])] = COLOURS[name]
        pictures = np.repeat(picture[None], self.count, axis=0)
        disc(pictures, self.agent, DRAWN, COLOURS["agent"])
        return pictures.round().astype(np.uint8)


def around(rng: np.random.Generator, other: Array | None = None) -> Array:
    """A place around the rock, at least half of the square's side away from another one, (2,)."""
    while True:
        at = rng.uniform(RADIUS, 1 - RADIUS, 2)
        if not within(at[None], ROCK, RADIUS)[0] and (other is None or np.linalg.norm(at - other) > 0.5):
            return at


def within(at: Array, box: tuple[float, float, float, float], margin: float = 0.0) -> Array:
    """Whether places (B, 2) lie in a box (left, right, top, bottom), widened by a margin, (B,)."""
    left, right, top, bottom = box
    inside = (at[:, 0] > left - margin) & (at[:, 0] < right + margin)
    return inside & (at[:, 1] > top - margin) & (at[:, 1] < bottom + margin)


def fallen(state: Array) -> Array:
    """Whether the gust has thrown someone into the pit and they are still there, (B,)."""
    return within(state[:, :2], PIT)


def bold(state: Array) -> Array:
    """Where a bold walker goes now: straight to the goal, over the bridge, (B, 2)."""
    return np.where(within(state[:, :2], PIT)[:, None], [[0.5, 0.5]], state[:, 2:4])


def careful(state: Array) -> Array:
    """Where a careful walker goes now: around the rock, above it, (B, 2)."""
    agent = state[:, :2]
    left, right, top = ROCK[0] - RADIUS - SPEED, ROCK[1] + RADIUS + SPEED, ROCK[2] - RADIUS - SPEED / 2
    up = np.stack([np.minimum(agent[:, 0], left), np.full(len(agent), top)], axis=1)
    over = np.tile([right, top], (len(agent), 1))
    high = agent[:, 1] < ROCK[2] - RADIUS - 0.001
    passed = agent[:, 0] > ROCK[1] + RADIUS
    waypoint = np.where(high[:, None], over, up)
    return np.where(passed[:, None], state[:, 2:4], waypoint)


def routed(state: Array, lane: Array) -> Array:
    """Where to go now, from anywhere to a goal anywhere around the rock, (B, 2).

    Args:
        state: (B, 5).
        lane: (B,) which of `LANES` to take to the other side.
    """
    agent, goal = state[:, :2], state[:, 2:4]
    own, there = (np.digitize(one[:, 0], (ROCK[0] - RADIUS, ROCK[1] + RADIUS)) for one in (agent, goal))  # 0, 1, 2
    nearest = (np.abs(agent[:, 1, None] - LANES).argmin(1), np.abs(goal[:, 1, None] - LANES).argmin(1))
    lane = np.where(own == 1, nearest[0], np.where(there == 1, nearest[1], lane))  # between the sides there is one
    away = (there > own) | ((there == 1) & (own == 1))  # to the right
    mouth = np.where(np.where(own == 1, away, own == 2), SIDES[1], SIDES[0])
    far = np.where((there == 1) & (own != 1), goal[:, 0], np.where(away, SIDES[1], SIDES[0]))
    aligned = (own == 1) | (np.abs(agent[:, 1] - LANES[lane]) < 0.035)
    way = np.stack([np.where(aligned, far, mouth), LANES[lane]], axis=1)
    straight = (own == there) & ((own != 1) | (nearest[0] == nearest[1]))
    way = np.where(straight[:, None], goal, way)
    return np.where(within(agent, PIT)[:, None], [[BOTTOM[0], LANES[0]]], way)

"""Four rooms in a ring, with a door between neighbours that may be shut, and a distractor that means nothing.

After the FourRoom world of the H-JEPA paper (Zhang et al. 2026, arXiv 2610.06805): a distractor wanders and teleports,
and goals lie two rooms away. Rooms are numbered 0 upper left, 1 upper right, 2 lower left, 3 lower right; doors 0
between 0 and 1, 1 between 2 and 3 (both in the upright wall), 2 between 0 and 2, 3 between 1 and 3.
"""

import numpy as np
from numpy import ndarray as Array

from jepa_pretrain.agent.worlds.ground import DRAWN, RADIUS, Ground, Options, disc, place

PACE = 0.4  # of an action, beside `SPEED`: two rooms away are some fifty steps
WALL = 0.03  # half the thickness
DOOR = 0.08  # half the width of a door
SIDES = ((0, 1), (2, 3), (0, 2), (1, 3))  # the rooms on both sides of each door
TELEPORT = 1 / 35  # probability of each step that the distractor appears somewhere else
WANDER = 0.02  # deviation of its speed's change
COLOURS = {"wall": (0, 0, 0), "shut": (150, 110, 60), "agent": (220, 30, 30), "distractor": (30, 60, 220)}


class Rooms(Ground):
    """The world of `FourRooms-v0`; its state is agent (2), goal (2), doors' places (4), doors open (4), distractor (2).

    Args:
        count: episodes (B).
        motor: factor on every action, see `Ground`.
        shut: probability that one of the four doors is shut; the others still join all rooms.
        moving_doors: doors lie anywhere in the middle half of their wall, instead of in its middle.
        rooms_away: rooms between start and goal: 0, 1 or 2; None for any.
        distractor: whether there is one.
    """

    size = 14

    def __init__(
        self,
        count: int,
        motor: tuple[float, float] = (1.0, 1.0),
        shut: float = 0.5,
        moving_doors: bool = False,
        rooms_away: int | None = 2,
        distractor: bool = True,
    ) -> None:
        super().__init__(count, motor)
        self.shut, self.moving_doors, self.rooms_away, self.distracts = shut, moving_doors, rooms_away, distractor
        self.door, self.open = np.zeros((count, 4)), np.ones((count, 4), dtype=bool)
        self.distractor, self.drift = np.zeros((count, 2)), np.zeros((count, 2))

    def begin(self, row: int, options: Options) -> None:
        rng = self.rngs[row]
        along = rng.uniform(-0.1, 0.1, 4) if self.moving_doors else np.zeros(4)
        self.door[row] = np.array([0.25, 0.75, 0.25, 0.75]) + along
        chosen, is_shut = rng.integers(4), rng.random() < self.shut
        self.open[row] = options.get("open", (np.arange(4) != chosen) | (not is_shut))
        start = rng.integers(4)
        away = rng.integers(3) if self.rooms_away is None else self.rooms_away
        goal = {0: start, 1: start ^ rng.choice([1, 2]), 2: start ^ 3}[int(away)]
        self.agent[row] = place(options, "state", self._inside(rng, start))
        self.goal[row] = place(options, "target_state", self._inside(rng, goal))
        self.distractor[row], self.drift[row] = rng.uniform(0.1, 0.9, 2), 0

    @staticmethod
    def _inside(rng: np.random.Generator, room: int) -> Array:
        """A place in a room, clear of its walls."""
        return np.array([room % 2, room // 2]) * 0.5 + rng.uniform(0.08, 0.42, 2)

    def move(self, wanted: Array) -> None:
        wanted = PACE * wanted
        for axis in (0, 1):  # one after the other, so that one slides along a wall
            there = self.agent.copy()
            there[:, axis] = np.clip(there[:, axis] + wanted[:, axis], RADIUS, 1 - RADIUS)
            self.agent = np.where(self._blocked(there)[:, None], self.agent, there)
        if self.distracts:
            self._wander()

    def _blocked(self, at: Array) -> Array:
        """Whether a disc at a place (B, 2) would touch a wall or a shut door, (B,)."""
        blocked = np.zeros(len(at), dtype=bool)
        for axis in (0, 1):
            along = at[:, 1 - axis]
            number = 2 * axis + (along > 0.5)
            rows = np.arange(len(at))
            through = self.open[rows, number] & (np.abs(along - self.door[rows, number]) <= DOOR - RADIUS)
            blocked |= (np.abs(at[:, axis] - 0.5) < WALL + RADIUS) & ~through
        return blocked

    def _wander(self) -> None:
        drawn = np.stack([rng.random(5) for rng in self.rngs])  # (B, 5)
        self.drift = 0.9 * self.drift + WANDER * (drawn[:, :2] - 0.5)
        elsewhere = drawn[:, 2:3] < TELEPORT
        self.distractor = np.where(elsewhere, 0.1 + 0.8 * drawn[:, 3:], self.distractor + self.drift).clip(0.05, 0.95)

    def state(self) -> Array:
        return np.concatenate([self.agent, self.goal, self.door, self.open, self.distractor], axis=1)

    def paint(self, size: int) -> Array:
        picture = np.full((self.count, size, size, 3), 255.0)
        at = (np.arange(size) + 0.5) / size
        for axis in (0, 1):  # the upright wall, then the level one
            across = np.abs(at - 0.5) < WALL
            number = 2 * axis + (at > 0.5)  # (S,) the door of each place along the wall
            gap = np.abs(at - self.door[:, number]) < DOOR  # (B, S)
            colour = np.where(self.open[:, number, None], 255, COLOURS["shut"])
            colour = np.where(gap[..., None], colour, COLOURS["wall"])  # (B, S, 3) along the wall
            if axis == 0:
                picture[:, :, across] = colour[:, :, None]
            else:
                inside = across[:, None] & ~(np.abs(at - 0.5) < WALL)[None, :]  # the crossing is wall already
                picture[:, inside] = np.broadcast_to(colour[:, None], picture.shape)[:, inside]
        if self.distracts:
            disc(picture, self.distractor, DRAWN, COLOURS["distractor"])
        disc(picture, self.agent, DRAWN, COLOURS["agent"])
        return picture.round().astype(np.uint8)


def waypoint(state: Array, towards: Array | None = None) -> Array:
    """Where to go now: to the goal, or through the next open door on the shorter way around, (B, 2).

    Args:
        state: (B, 14) as `Rooms` gives it.
        towards: (B, 2) another goal, for the explorer; the state's own without.
    """
    agent, goal = state[:, :2], state[:, 2:4] if towards is None else towards
    here, there = room(agent), room(goal)
    result = goal.copy()
    for row in np.flatnonzero(here != there):
        number = _next_door(int(here[row]), int(there[row]), agent[row], goal[row], state[row])
        if number is not None:
            result[row] = _through(number, agent[row], state[row, 4 + number], int(here[row]))
    return result


def room(at: Array) -> Array:
    """Number of the room that places (B, 2) lie in, (B,)."""
    return (at[:, 0] > 0.5) + 2 * (at[:, 1] > 0.5)


def _centre(number: int, along: float) -> Array:
    return np.array([0.5, along]) if number < 2 else np.array([along, 0.5])


def _next_door(here: int, there: int, agent: Array, goal: Array, state: Array) -> int | None:
    """The first door of the shorter way; None where every way is shut."""
    first = [number for number in range(4) if here in SIDES[number]]
    lengths = [_length(number, here, there, agent, goal, state) for number in first]
    return first[int(np.argmin(lengths))] if min(lengths) < np.inf else None


def _length(number: int, here: int, there: int, agent: Array, goal: Array, state: Array) -> float:
    """How far it is around the ring, beginning with a door; infinite where a door on it is shut."""
    length, where = 0.0, agent
    for _ in range(3):
        if state[8 + number] < 0.5:
            return np.inf
        door = _centre(number, state[4 + number])
        length, where = length + float(np.linalg.norm(door - where)), door
        here = SIDES[number][1 - SIDES[number].index(here)]
        if here == there:
            return length + float(np.linalg.norm(goal - where))
        number = next(other for other in range(4) if other != number and here in SIDES[other])
    return np.inf


def _through(number: int, agent: Array, along: float, here: int) -> Array:
    """To the door's axis first, then straight through it."""
    axis = 0 if number < 2 else 1
    forwards = SIDES[number].index(here) == 0
    door, far = _centre(number, along), _centre(number, along)
    aligned = abs(agent[1 - axis] - along) < DOOR - RADIUS - 0.01
    shift = WALL + RADIUS + 0.03
    far[axis] += shift if forwards else -shift
    door[axis] += -shift if forwards else shift
    return far if aligned else door

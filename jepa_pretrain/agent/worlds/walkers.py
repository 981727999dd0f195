"""Scripted behaviour in the hard worlds: an expert that knows the truth, and an explorer that bumps into things."""

import numpy as np
import torch
from torch import Tensor

from jepa_pretrain.agent.environments import Seen
from jepa_pretrain.agent.worlds import fork, four_rooms
from jepa_pretrain.agent.worlds.choices import nearest
from jepa_pretrain.agent.worlds.ground import SPEED

HOLD = 0.97  # probability of each step that an explorer keeps where it is going
SWAY = 0.3  # deviation of an explorer's action
GUSTY, STEADY = 0.5, 0.8  # the same in the fork, and the probability of each step that it stays as it is
STRAY = 0.2  # share of an explorer's ways that lead straight on, whatever stands there


def towards(agent: np.ndarray, place: np.ndarray, pace: float) -> Tensor:
    """The action (B, 2) that leads nearest to places (B, 2) in a step of `pace`, of length one at most."""
    gap = (place - agent) / pace
    return torch.from_numpy((gap / np.linalg.norm(gap, axis=1, keepdims=True).clip(1)).astype(np.float32))


class RoomsExpert:
    """Through the open doors to the goal, the shorter way around."""

    def begin(self) -> None:
        """Nothing is remembered."""

    def act(self, seen: Seen, rngs: list[np.random.Generator]) -> Tensor:
        state = seen.state.double().numpy()
        return towards(state[:, :2], four_rooms.waypoint(state), SPEED * four_rooms.PACE)


class RoomsExplorer:
    """To random places one after the other, through doors or straight into walls, unsteadily."""

    def begin(self) -> None:
        self._place: np.ndarray | None = None
        self._stray: np.ndarray | None = None

    def act(self, seen: Seen, rngs: list[np.random.Generator]) -> Tensor:
        state = seen.state.double().numpy()
        if self._place is None:
            self._place, self._stray = np.zeros((len(rngs), 2)), np.zeros(len(rngs), dtype=bool)
            renewed = np.ones(len(rngs), dtype=bool)
        else:
            near = np.linalg.norm(state[:, :2] - self._place, axis=1) < 0.05
            renewed = near | np.array([rng.random() > HOLD for rng in rngs])
        sway = np.stack([rng.normal(0, SWAY, 2) for rng in rngs])
        for row in np.flatnonzero(renewed):
            self._place[row], self._stray[row] = rngs[row].uniform(0.05, 0.95, 2), rngs[row].random() < STRAY
        way = np.where(self._stray[:, None], self._place, four_rooms.waypoint(state, self._place))
        action = towards(state[:, :2], way, SPEED * four_rooms.PACE) + torch.from_numpy(sway).float()
        return action.clamp(-1, 1)


class ForkWalker:
    """Over the bridge or around the rock, drawn for each episode.

    Args:
        bridge: probability of the bridge.
    """

    def __init__(self, bridge: float) -> None:
        self.bridge = bridge

    def begin(self) -> None:
        self._bold: np.ndarray | None = None

    def act(self, seen: Seen, rngs: list[np.random.Generator]) -> Tensor:
        state = seen.state.double().numpy()
        if self._bold is None:
            self._bold = np.array([rng.random() < self.bridge for rng in rngs])
        way = np.where(self._bold[:, None], fork.bold(state), fork.careful(state))
        return towards(state[:, :2], way, SPEED)


class ForkExplorer:
    """To its goal, unsteadily and at any pace: over the bridge or around on either side, or straight on."""

    def begin(self) -> None:
        self._goal: np.ndarray | None = None

    def act(self, seen: Seen, rngs: list[np.random.Generator]) -> Tensor:
        state, count = seen.state.double().numpy(), len(rngs)
        if self._goal is None:
            self._goal, self._sway, self._pace = np.full((count, 2), -1.0), np.zeros((count, 2)), np.ones(count)
            self._lane, self._stray = np.zeros(count, int), np.zeros(count, bool)
        for row in np.flatnonzero((self._goal != state[:, 2:4]).any(1)):  # drawn for each goal
            rng = rngs[row]
            self._lane[row], self._stray[row] = rng.choice(3, p=(0.5, 0.25, 0.25)), rng.random() < STRAY
            self._pace[row] = rng.uniform(0.4, 1)
        self._goal = state[:, 2:4]
        drawn = np.stack([np.append(rng.normal(0, GUSTY, 2), rng.random()) for rng in rngs])
        self._sway = np.where(drawn[:, 2:] > STEADY, drawn[:, :2], self._sway)
        way = np.where(self._stray[:, None], state[:, 2:4], fork.routed(state, self._lane))
        action = towards(state[:, :2], way, SPEED) * torch.from_numpy(self._pace).float()[:, None]
        return (action + torch.from_numpy(self._sway).float()).clamp(-1, 1)


class Stepping:
    """Another behaviour where there are four moves to choose from: the one that leads there best.

    Args:
        behaviour: what it would do if it could go anywhere.
    """

    def __init__(self, behaviour: RoomsExpert | RoomsExplorer) -> None:
        self.behaviour = behaviour

    def begin(self) -> None:
        self.behaviour.begin()

    def act(self, seen: Seen, rngs: list[np.random.Generator]) -> Tensor:
        return torch.from_numpy(nearest(self.behaviour.act(seen, rngs).numpy()))

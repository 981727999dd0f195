"""Ways to act that need no model: what is recorded for training, and the floor and ceiling of every evaluation.

A behaviour is asked for one action per environment and draws from a generator per environment, so that an episode does
not depend on its neighbours.
"""

from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from jepa_pretrain.agent.environments import Actions, Seen
from jepa_pretrain.agent.worlds.walkers import ForkExplorer, ForkWalker, RoomsExpert, RoomsExplorer, Stepping
from jepa_pretrain.contracts import UserError

HOLD = 0.9  # probability that a sticky action is held for another step
ALIGNED = 10.0  # pixels beside the door's axis at which one can go straight through
U_WAY = torch.tensor(
    [[-1.0, 1], [0, 1], [1, 1], [1, 0], [1, -1], [0, -1], [-1, -1]]
)  # cells of PointMaze_UMaze, in order
STAY = 50  # steps on average after which an explorer goes elsewhere
NEAR = 5.0  # pixels at which an explorer of TwoRoom has arrived
BEYOND = 14.0  # pixels behind the wall's axis, where one is through
BORDER = (21.0, 203.0)  # pixels: between these an agent of TwoRoom stays; a door may be centred beyond them


class Behaviour(Protocol):
    """`act(seen, rngs)`: the action of every environment, `(B, A)`; `begin` is called after every reset."""

    def begin(self) -> None: ...

    def act(self, seen: Seen, rngs: list[np.random.Generator]) -> Tensor: ...


class Random:
    """Actions drawn evenly from all there are.

    Args:
        actions: What can be done.
        hold: Probability that the last action is kept; 0 draws at every step, .9 pushes on for ten steps on average.
    """

    def __init__(self, actions: Actions, hold: float = 0.0) -> None:
        self.actions, self.hold = actions, hold
        self._last: list[np.ndarray | None] = []

    def begin(self) -> None:
        self._last = []

    def act(self, seen: Seen, rngs: list[np.random.Generator]) -> Tensor:
        self._last = self._last or [None] * len(rngs)
        for number, rng in enumerate(rngs):
            keep, drawn = rng.random() < self.hold, self._draw(rng)  # both at every step, whatever is kept
            if self._last[number] is None or not keep:
                self._last[number] = drawn
        return torch.from_numpy(np.stack(self._last))

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        if self.actions.discrete:
            return np.eye(self.actions.width, dtype=np.float32)[rng.integers(self.actions.width)]
        return rng.uniform(self.actions.low.numpy(), self.actions.high.numpy()).astype(np.float32)


class TwoRoomStraight:
    """Straight to the target of `swm/TwoRoom-v1`, whatever stands between: the floor of its evaluation.

    Its state is agent (2), target (2) and the centres of up to three doors, in pixels.
    """

    def begin(self) -> None:
        """Nothing is remembered."""

    def act(self, seen: Seen, rngs: list[np.random.Generator]) -> Tensor:
        return _towards(seen.state[:, :2], self.waypoint(seen.state))

    def waypoint(self, state: Tensor) -> Tensor:
        """Where to go now, (B, 2)."""
        return state[:, 2:4]


class TwoRoomExpert(TwoRoomStraight):
    """To the target through the door: to the door first if the target is behind the wall, then straight through it."""

    def waypoint(self, state: Tensor) -> Tensor:
        agent, target = state[:, :2], state[:, 2:4]
        door = torch.cat([state[:, 4:5], state[:, 5:6].clamp(*BORDER)], dim=1)  # where it can be stood in
        across = (agent[:, :1] > door[:, :1]) != (target[:, :1] > door[:, :1])
        aligned = (agent[:, 1:] - door[:, 1:]).abs() < ALIGNED
        side = torch.sign(target[:, :1] - door[:, :1])
        beyond = torch.cat([door[:, :1] + BEYOND * side, door[:, 1:]], dim=1)
        return torch.where(across, torch.where(aligned, beyond, door), target)


class TwoRoomExplorer(TwoRoomExpert):
    """From place to place, whatever the target is: by the door, or straight on, which often ends at the wall."""

    def begin(self) -> None:
        self._goals: Tensor | None = None  # (B, 2)

    def act(self, seen: Seen, rngs: list[np.random.Generator]) -> Tensor:
        drawn = torch.from_numpy(np.stack([rng.uniform(*BORDER, 2) for rng in rngs])).float()
        bold = torch.tensor([rng.random() < 0.5 for rng in rngs])
        again = torch.tensor([rng.random() < 1 / STAY for rng in rngs])
        if self._goals is None:
            self._goals, self._bold = drawn, bold
        again |= (seen.state[:, :2] - self._goals).norm(dim=1) < NEAR
        self._goals = torch.where(again[:, None], drawn, self._goals)
        self._bold = torch.where(again, bold, self._bold)
        return super().act(seen, rngs)

    def waypoint(self, state: Tensor) -> Tensor:
        own = torch.cat([state[:, :2], self._goals, state[:, 4:]], dim=1)
        return torch.where(self._bold[:, None], self._goals, super().waypoint(own))


def _towards(agent: Tensor, goal: Tensor) -> Tensor:
    """A step of length one, or less where the goal is nearer than that (5 pixels), (B, 2)."""
    gap = (goal - agent) / 5.0
    return gap / gap.norm(dim=1, keepdim=True).clamp_min(1.0)


class UMazeStraight:
    """Pushes straight to the goal, with the brake of its own speed, whatever stands between."""

    def begin(self) -> None:
        """Nothing is remembered."""

    def act(self, seen: Seen, rngs: list[np.random.Generator]) -> Tensor:
        gap = self.waypoint(seen.state) - seen.state[:, :2]
        return (4.0 * gap - 1.0 * seen.state[:, 4:6]).clamp(-1, 1)

    def waypoint(self, state: Tensor) -> Tensor:
        """Where to go now, (B, 2)."""
        return state[:, 2:4]


class UMazeExpert(UMazeStraight):
    """Cell by cell along the U."""

    def waypoint(self, state: Tensor) -> Tensor:
        here, there = (torch.cdist(state[:, i : i + 2], U_WAY).argmin(1) for i in (0, 2))
        return torch.where((here == there)[:, None], state[:, 2:4], U_WAY[here + torch.sign(there - here)])


class UMazeExplorer(UMazeExpert):
    """From place to place along the U, another one now and then, whatever the goal is."""

    def begin(self) -> None:
        self._goals: Tensor | None = None

    def act(self, seen: Seen, rngs: list[np.random.Generator]) -> Tensor:
        drawn = torch.stack([U_WAY[rng.integers(len(U_WAY))] + torch.from_numpy(rng.uniform(-0.25, 0.25, 2)).float()
                             for rng in rngs])  # fmt: skip
        again = torch.tensor([rng.random() < 1 / STAY for rng in rngs])
        self._goals = drawn if self._goals is None else torch.where(again[:, None], drawn, self._goals)
        return super().act(seen, rngs)

    def waypoint(self, state: Tensor) -> Tensor:
        """Where to go now, (B, 2)."""
        return super().waypoint(torch.cat([state[:, :2], self._goals], dim=1))


FORK = {"bold": partial(ForkWalker, 1.0), "straight": partial(ForkWalker, 1.0), "careful": partial(ForkWalker, 0.0),
        "expert": partial(ForkWalker, 0.0), "explorer": ForkExplorer}  # fmt: skip
SCRIPTED = {
    "swm/TwoRoom-v1": {"expert": TwoRoomExpert, "straight": TwoRoomStraight, "explorer": TwoRoomExplorer},
    "PointMaze_UMaze-v3": {"expert": UMazeExpert, "straight": UMazeStraight, "explorer": UMazeExplorer},
    "jepa_pretrain/FourRooms-v0": {"expert": RoomsExpert, "explorer": RoomsExplorer},
    "jepa_pretrain/Rooms-v0": {"expert": RoomsExpert, "explorer": RoomsExplorer},
    "jepa_pretrain/RoomsSteps-v0": {"expert": lambda: Stepping(RoomsExpert()),
                                    "explorer": lambda: Stepping(RoomsExplorer())},
    "jepa_pretrain/Fork-v0": FORK,
    "jepa_pretrain/ForkAnywhere-v0": FORK,
}  # fmt: skip


def behaviour(name: str, environment: str, actions: Actions) -> Behaviour:
    """A behaviour by its name.

    Args:
        name: `random`, `sticky`, or a scripted one where the environment has such: `expert`, `explorer`, `straight`.
        environment: Gymnasium id.
        actions: What can be done there.
    """
    if name in ("random", "sticky"):
        return Random(actions, HOLD if name == "sticky" else 0.0)
    scripted = SCRIPTED.get(environment, {})
    if name not in scripted:
        known = ", ".join(["random", "sticky", *scripted])
        raise UserError(f"{environment} has no behaviour {name!r}; known: {known}")
    return scripted[name]()

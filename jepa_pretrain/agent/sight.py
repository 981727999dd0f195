"""What a world model is shown: the picture of now and, where it wants more, those of the last looks beside it.

An agent looks once per block of actions, so the pictures of an observation are a block of steps apart. Acting and
learning from recordings put the same pictures together, both here. Before the beginning nothing moved, so the first
picture is repeated, as it is for a goal, which is a state at rest.
"""

from typing import Protocol

import torch
from torch import Tensor

from jepa_pretrain.contracts import Episode, UserError
from jepa_pretrain.models.glances import at_rest

CHUNK = 512  # observations encoded at a time


class Seeing(Protocol):
    """What observations are for: a `WorldModel`, or the `World` that becomes one."""

    frames: int  # pictures of an observation
    block: int  # environment steps between two of them

    def encode(self, frames: Tensor) -> Tensor:
        """`(B, 3 * frames, H, W)` -> states `(B, N, D)`."""
        ...


class Sight:
    """What was seen at the last looks, in any number of environments.

    Args:
        frames: Pictures of an observation.
    """

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.begin(0)

    def begin(self, environments: int) -> None:
        """New episodes everywhere."""
        self.kept: Tensor | None = None  # (E, frames, C, H, W)
        self.fresh = torch.ones(environments, dtype=torch.bool)  # that have not looked yet

    def forget(self, rows: Tensor) -> None:
        """New episodes in some environments, `(B,)`."""
        self.fresh[rows] = True

    def look(self, pictures: Tensor, rows: Tensor) -> Tensor:
        """Observations at a look.

        Args:
            pictures: What some environments show now, `(B, 3, H, W)`.
            rows: Which they are, `(B,)`.

        Returns:
            `(B, 3 * frames, H, W)`.

        Raises:
            UserError: Pictures of another shape than at the last look.
        """
        if self.frames == 1:
            return pictures
        if self.kept is None:
            self.kept = pictures.new_zeros(len(self.fresh), self.frames, *pictures.shape[1:])
        if pictures.shape[1:] != self.kept.shape[2:]:
            found, before = tuple(pictures.shape[1:]), tuple(self.kept.shape[2:])
            raise UserError(f"an agent is shown one picture of each environment, now {found}, before {before}")
        seen = torch.cat([self.kept[rows, 1:], pictures[:, None]], dim=1)
        seen = torch.where(self.fresh[rows, None, None, None, None], pictures[:, None], seen)
        self.kept[rows], self.fresh[rows] = seen, False
        return seen.flatten(1, 2)


def looks(lengths: list[int], block: int, frames: int) -> Tensor:
    """Which pictures make the observation at every frame of recordings, oldest first: `(S, frames)` int64.

    Args:
        lengths: Frames of each episode; they are counted in a row.
        block: Steps between two looks.
        frames: Pictures of an observation.
    """
    ago = block * torch.arange(frames - 1, -1, -1)
    first = 0
    found = [torch.zeros(0, frames, dtype=torch.int64)]
    for length in lengths:
        found.append(first + (torch.arange(length)[:, None] - ago).clamp_min(0))
        first += length
    return torch.cat(found)


def joined(seen: Tensor, at: Tensor) -> Tensor:
    """Observations out of single pictures, or their features out of those of single pictures.

    Args:
        seen: `(S, 3, H, W)` or `(S, F)`.
        at: Which pictures make each, `(M, frames)`, rows of `looks`.

    Returns:
        `(M, 3 * frames, H, W)` or `(M, frames * F)`.
    """
    return seen[at].flatten(1, 2)


def observed(model: Seeing, episodes: list[Episode]) -> Tensor:
    """The observations at all frames of recordings in a row, `(S, 3 * frames, H, W)`."""
    at = looks([len(one.frames) for one in episodes], model.block, model.frames)
    return joined(torch.cat([one.frames for one in episodes]), at)


def encoded(model: Seeing, episodes: list[Episode], at: Tensor | None = None) -> Tensor:
    """States of recordings, `(S, N, D)`.

    Args:
        model: Encodes.
        episodes: Their frames are counted in a row.
        at: The frames that are wanted, `(M,)`; all of them without.
    """
    rows = looks([len(one.frames) for one in episodes], model.block, model.frames)
    return _states(model, episodes, rows if at is None else rows[at])


def encoded_at_rest(model: Seeing, episodes: list[Episode], at: Tensor | None = None) -> Tensor:
    """States of what recordings show, had it not moved before: as goals are seen. Arguments as in `encoded`."""
    frames = torch.arange(sum(len(one.frames) for one in episodes)) if at is None else at
    return _states(model, episodes, frames[:, None].expand(-1, model.frames))


def goal_state(model: Seeing, pictures: Tensor) -> Tensor:
    """States that are goals, at rest, from a picture each: `(B, 3, H, W)` -> `(B, N, D)`."""
    return model.encode(at_rest(pictures, model.frames))


def _states(model: Seeing, episodes: list[Episode], rows: Tensor) -> Tensor:
    frames = torch.cat([one.frames for one in episodes])
    with torch.no_grad():
        return torch.cat([model.encode(joined(frames, part)) for part in rows.split(CHUNK)])

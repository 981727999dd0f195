"""Spans: which frames of a video a clip gives, and which actions go with them.

A clip that is longer than its video holds the video's last frame.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jepa_pretrain.contracts import UserError

ROUNDING = 0.75e-3  # seconds by which a stored time may be too late: Matroska rounds to milliseconds


@dataclass(frozen=True)
class Span:
    """The stretch of a video that a clip covers; the defaults take single frames.

    Args:
        frames: Frames of a clip (T). Shorter videos hold their last frame, pictures their only one.
        stride: Every how-manieth frame of the video is taken; the actions in between are joined side by side.
        fps: Frames per second of the clip instead, whatever the video's rate: at each of the clip's moments the frame
            that a player would show. It repeats frames where the video has fewer.
    """

    frames: int = 1
    stride: int = 1
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.frames < 1 or self.stride < 1 or (self.fps is not None and self.fps <= 0):
            raise UserError(f"impossible span: {self.frames} frames, stride {self.stride}, {self.fps} fps")
        if self.fps is not None and self.stride != 1:
            raise UserError("a span has a stride or a rate (fps), not both")

    def choose(self, times: np.ndarray, end: float, place: float) -> list[int]:
        """The numbers of a clip's frames, as many as it has.

        Args:
            times: (F,) when each frame of the video appears, in seconds, ascending.
            end: When the last one ceases.
            place: Where among all possible clips it lies: 0 is the first, 0.5 the central one, 1 the last.
        """
        if self.fps is None:
            room = max(len(times) - (self.frames - 1) * self.stride, 1)  # how many clips are possible
            first = min(int(place * room), room - 1)
            return [min(first + step * self.stride, len(times) - 1) for step in range(self.frames)]
        first = times[0] + place * max(end - times[0] - self.frames / self.fps, 0)
        moments = first + np.arange(self.frames) / self.fps + ROUNDING
        return (np.searchsorted(times, moments, side="right") - 1).clip(0).tolist()


SINGLE = Span()


class Taken(NamedTuple):
    """A clip out of a video."""

    frames: Tensor  # (T, C, H, W) uint8; T = 1 for pictures
    numbers: list[int]  # of these frames in their video
    actions: Tensor | None = None  # (T, A), where any were recorded


def even(count: int) -> list[float]:
    """Places of several clips, evenly spread over a video; a single one lies in its middle."""
    return [(number + 0.5) / count for number in range(count)]


def actions_at(actions: Tensor, numbers: list[int], stride: int | None = None) -> Tensor:
    """The actions of a clip: at each of its frames, those taken until its next one.

    Args:
        actions: (F, A), one for every frame of the video: what is done from that frame to the next.
        numbers: Which frames the clip has (T).
        stride: Frames of the video from one frame of the clip to the next, whose actions are joined side by side, the
            first taken first; past the end of the record its last action stands in. None where it is no fixed number,
            as with a span by rate: then their mean is given.

    Returns:
        (T, stride A), or the means, (T, A).
    """
    if stride is not None:
        steps = torch.tensor(numbers)[:, None] + torch.arange(stride)  # (T, stride)
        return actions[steps.clamp(max=len(actions) - 1)].flatten(1)
    last = 2 * numbers[-1] - numbers[-2] if len(numbers) > 1 else 0
    steps = zip(numbers, [*numbers[1:], last], strict=True)
    return torch.stack([actions[one : max(following, one + 1)].mean(0) for one, following in steps])

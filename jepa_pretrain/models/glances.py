"""Several pictures in one observation, so that a state can say how things move.

An observation is the channels of `frames` pictures in a row, `(B, 3 * frames, H, W)`, the oldest first and that of now
last. What is at rest, as a goal is, looked the same before: its picture is repeated.

Every picture is coded by itself, and how things move is then the difference of two codes, made as large as the codes
are. One network on all pictures side by side hardly finds it: of a square that rolls, after 150 steps of `agent train`,
speed was read from states with R2 .00, from a linear map of two codes .23, with their difference .68 (.70 is what two
true places tell).
"""

import torch
from torch import Tensor, nn

CHANNELS = 3  # of a picture
GAIN = 2.0  # of a change: from look to look codes differ by less than over a whole recording


def at_rest(pictures: Tensor, frames: int) -> Tensor:
    """Observations of what does not move: `(B, 3, H, W)` -> `(B, 3 * frames, H, W)`.

    Args:
        pictures: one each.
        frames: pictures of an observation.
    """
    return pictures.repeat(1, frames, 1, 1) if frames > 1 else pictures


class Motion(nn.Module):
    """One state of the codes of several pictures: the code of now, and how it changed from look to look.

    Args:
        width: of the codes, and of the state.
        frames: pictures, two or more.
    """

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.mix = nn.Linear(frames * width, width)

    def forward(self, codes: Tensor) -> Tensor:
        """`(B, frames, D)`, the oldest first, -> `(B, D)`."""
        changes = GAIN * (codes[:, 1:] - codes[:, :-1])
        return self.mix(torch.cat([changes, codes[:, -1:]], dim=1).flatten(1))

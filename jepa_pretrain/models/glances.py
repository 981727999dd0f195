"""Several pictures in one observation, so that a state can say how things move.

An observation is the channels of `frames` pictures in a row, `(B, 3 * frames, H, W)`, the oldest first and that of now
last. What is at rest, as a goal is, looked the same before: its picture is repeated.
"""

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import Encoder, Grid, UserError
from jepa_pretrain.models.described import described

CHANNELS = 3  # of a picture


def at_rest(pictures: Tensor, frames: int) -> Tensor:
    """Observations of what does not move: `(B, 3, H, W)` -> `(B, 3 * frames, H, W)`.

    Args:
        pictures: one each.
        frames: pictures of an observation.
    """
    return pictures.repeat(1, frames, 1, 1) if frames > 1 else pictures


class Glances(nn.Module):
    """An encoder of observations: every picture by itself, their tokens one below the other on a higher grid.

    Args:
        encoder: of a single picture.
        frames: pictures of an observation.

    Raises:
        UserError: fewer than one picture, or an encoder of clips.
    """

    def __init__(self, encoder: Encoder, frames: int) -> None:
        super().__init__()
        if frames < 1 or encoder.grid.t != 1:
            raise UserError(f"observations join one picture or more, seen by an encoder of pictures: found {frames} on "
                            f"a grid of {tuple(encoder.grid)}")  # fmt: skip
        self.config = dict(encoder=described(encoder), frames=frames)
        self.encoder, self.frames, self.width = encoder, frames, encoder.width
        self.grid = Grid(1, frames * encoder.grid.h, encoder.grid.w)
        self.image_size, self.normalise = encoder.image_size, encoder.normalise

    def forward(self, clip: Tensor, keep: Tensor | None = None) -> Tensor:
        """`(B, 3 * frames, T, H, W)` -> `(B, frames * N, F)`; of a clip of several moments, the first."""
        if keep is not None:
            raise UserError("an encoder of several pictures cannot drop tokens")
        return torch.cat([self.encoder(one[:, :, :1]) for one in self._apart(clip)], dim=1)

    def forward_layers(self, clip: Tensor, layers: int) -> list[Tensor]:
        """The last `layers` of the encoder, those of every picture below each other, each `(B, frames * N_i, F_i)`."""
        found = [self.encoder.forward_layers(one[:, :, :1], layers) for one in self._apart(clip)]
        return [torch.cat(level, dim=1) for level in zip(*found, strict=True)]

    def _apart(self, clip: Tensor) -> tuple[Tensor, ...]:
        if clip.shape[1] != CHANNELS * self.frames:
            raise UserError(
                f"an observation of {self.frames} pictures has {CHANNELS * self.frames} channels, found {clip.shape[1]}"
            )
        return clip.split(CHANNELS, dim=1)

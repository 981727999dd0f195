"""Small encoders of single frames, for worlds that are drawn rather than photographed."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.models.normalise import Normalise


class SmallConv(nn.Module):
    """Strided convolutions: each halves the picture, until 4 x 4 places are left.

    Without training it is a random projection that keeps where things are, which is enough for a world model whose
    projector is trained (results: TwoRoom).

    Args:
        image_size: height and width, a power of two from 16 on.
        width: features per place.
        mean: per channel, on the scale 0..1.
        std: per channel, on the scale 0..1.
    """

    def __init__(
        self,
        image_size: int = 64,
        width: int = 64,
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__()
        if image_size < 16 or image_size & (image_size - 1):
            raise UserError(f"SmallConv takes pictures of 16, 32, 64, 128, ... pixels, not {image_size}")
        self.config = dict(image_size=image_size, width=width, mean=list(mean), std=list(std))
        self.image_size, self.width, self.grid = image_size, width, Grid(1, 4, 4)
        self.normalise = Normalise(mean, std)
        layers, inside = [], 3
        for left in reversed(range(image_size.bit_length() - 3)):  # halvings that follow
            out = max(width >> left, 16) if left else width
            layers += [nn.Conv2d(inside, out, 3, stride=2, padding=1), nn.ReLU(inplace=True)]
            inside = out
        self.stem = nn.Sequential(*layers)

    def forward(self, clip: Tensor, keep: Tensor | None = None) -> Tensor:
        """`(B, C, T, H, W)` -> `(B, 16, D)`; of a clip of several frames, the first."""
        if keep is not None:
            raise UserError("SmallConv cannot drop tokens")
        return self.forward_layers(clip, 1)[0]

    def forward_layers(self, clip: Tensor, layers: int) -> list[Tensor]:
        """What the last `layers` convolutions give, first one first, each `(B, N_i, D_i)`."""
        x, found = self.normalise(clip[:, :, :1])[:, :, 0], []
        x = x.contiguous(memory_format=torch.channels_last)  # a third less time on processors
        for layer in self.stem:
            x = layer(x)
            found.append(x)
        found = found[1::2]  # behind the ReLUs
        if layers > len(found):
            raise UserError(f"SmallConv has {len(found)} layers to give, not {layers}")
        return [one.flatten(2).transpose(1, 2) for one in found[-layers:]]


class Pixels(nn.Module):
    """The picture itself, made small: the plainest frozen encoder, and the baseline for all others.

    Args:
        image_size: height and width of the pictures that come in.
        side: height and width of what is left.
        mean: per channel, on the scale 0..1.
        std: per channel, on the scale 0..1.
    """

    def __init__(
        self,
        image_size: int = 64,
        side: int = 16,
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__()
        self.config = dict(image_size=image_size, side=side, mean=list(mean), std=list(std))
        self.image_size, self.width, self.grid, self.side = image_size, 3, Grid(1, side, side), side
        self.normalise = Normalise(mean, std)

    def forward(self, clip: Tensor, keep: Tensor | None = None) -> Tensor:
        """`(B, C, T, H, W)` -> `(B, side * side, 3)`; of a clip of several frames, the first."""
        if keep is not None:
            raise UserError("Pixels cannot drop tokens")
        small = F.adaptive_avg_pool2d(self.normalise(clip[:, :, :1])[:, :, 0], self.side)
        return small.flatten(2).transpose(1, 2)

    def forward_layers(self, clip: Tensor, layers: int) -> list[Tensor]:
        """The same, once: there is but one layer."""
        if layers != 1:
            raise UserError(f"Pixels has one layer to give, not {layers}")
        return [self(clip)]

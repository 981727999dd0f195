"""Pixels to normalised floats, inside the encoder, so that it cannot be fed the wrong constants."""

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """Subtract the mean and divide by the deviation, per channel.

    Args:
        mean: per channel, on the scale 0..1.
        std: per channel, on the scale 0..1.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            constants = torch.tensor(values, dtype=torch.get_default_dtype())  # whole numbers too: mean 0, std 1
            self.register_buffer(name, constants.view(-1, 1, 1, 1), persistent=False)

    def forward(self, clip: Tensor) -> Tensor:
        """`(B, C, T, H, W)`, uint8 in 0..255 or float in 0..1, to float of the module's own precision."""
        x = clip.float() / 255.0 if clip.dtype == torch.uint8 else clip
        return ((x - self.mean) / self.std).to(self.mean.dtype)

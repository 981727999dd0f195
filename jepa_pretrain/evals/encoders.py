"""What can be evaluated: everything that `FrozenEncoder.load` knows, and raw pixels."""

import hashlib
import json

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import Grid
from jepa_pretrain.evals.reader import Reader
from jepa_pretrain.interop.frozen import FrozenEncoder

PIXELS_SIZE = 32


class Pixels(nn.Module):
    """The picture or clip itself as its feature: the baseline that every encoder has to beat.

    Args:
        image_size: Pictures are brought to this size, so that the feature stays small.
        frames: Frames of a clip, which lie side by side in the feature.
    """

    name = "pixels"
    untrained = False

    def __init__(self, image_size: int = PIXELS_SIZE, frames: int = 1):
        super().__init__()
        self.image_size, self.frames = image_size, frames
        self.width, self.grid = 3 * frames * image_size**2, Grid(1, 1, 1)
        self.config = {"class": "Pixels", "args": {"image_size": image_size, "frames": frames}}
        self.provenance: dict = {}

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` or `(B, C, T, H, W)`, uint8 or float in 0..1 -> one token `(B, 1, C * T * H * W)` in 0..1."""
        flat = images.flatten(1).unsqueeze(1)
        return flat.float() / 255 if images.dtype == torch.uint8 else flat.float()

    def forward_layers(self, images: Tensor, layers: int) -> list[Tensor]:
        """There is only one layer, whatever is asked."""
        return [self(images)]


def resolve(encoder: str, reader: Reader) -> FrozenEncoder | Pixels:
    """The encoder that the user named.

    Args:
        encoder: `pixels`, or what `FrozenEncoder.load` takes.
        reader: Input size, frames of `pixels`.
    """
    return Pixels(frames=reader.frames) if encoder == "pixels" else FrozenEncoder.load(encoder, reader.image_size)


def digest(encoder: nn.Module) -> str:
    """A checksum of weights and configuration: two encoders with the same one give the same features.

    Args:
        encoder: A `FrozenEncoder` or `Pixels`.
    """
    total = hashlib.sha256(json.dumps(encoder.config, sort_keys=True).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()

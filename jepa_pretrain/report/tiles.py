"""Small pictures as they appear on the page: tensors to PNG files inside the HTML."""

import base64
import io

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SIDE = 144  # pixels on the page, about: pictures grow or shrink by whole factors where they can


def png(image: Tensor) -> str:
    """A data address for a picture.

    Args:
        image: `(3, H, W)` uint8.
    """
    stream = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(stream, "png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def enlarge(image: Tensor, side: int = SIDE) -> Tensor:
    """Bring a square picture to about `side` pixels: whole pixels when it grows, smooth when it shrinks.

    Args:
        image: `(3, H, H)` uint8.
        side: Wanted size.
    """
    if image.shape[-1] >= side:
        return F.interpolate(image[None].float(), (side, side), mode="area")[0].round().to(torch.uint8)
    return image.repeat_interleave(side // image.shape[-1], 1).repeat_interleave(side // image.shape[-1], 2)


def strip(clip: Tensor, steps: int, side: int = SIDE) -> Tensor:
    """Frames of a clip side by side, the first of each step.

    Args:
        clip: `(3, T, H, H)` uint8.
        steps: How many frames to show, at most T.
        side: Of each, about.
    """
    return torch.cat([enlarge(clip[:, step * clip.shape[1] // steps], side) for step in range(steps)], dim=2)

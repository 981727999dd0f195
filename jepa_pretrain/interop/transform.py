"""From a picture as people have it to what an encoder takes: the middle of it, at the encoder's size, as uint8."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from jepa_pretrain.contracts import UserError


class Transform:
    """Resize the short side to size x 256 / 224 and cut out the middle, as in evaluation; the encoder normalises.

    Args:
        size: Height and width of the result, pixels.
    """

    def __init__(self, size: int) -> None:
        self.size, self.resize = size, round(size * 256 / 224)

    def __call__(self, picture: Image.Image | np.ndarray | Tensor) -> Tensor:
        """A picture -> `(3, size, size)` uint8; a clip `(3, T, H, W)` -> `(3, T, size, size)`.

        Args:
            picture: A PIL image, an array `(H, W, 3)` uint8, or a tensor `(3, H, W)` or `(3, T, H, W)`, uint8, or
                float in 0..1, which stays float.

        Raises:
            UserError: Something else.
        """
        image = _tensor(picture)
        height, width = image.shape[-2:]
        if height == width == self.size:
            return image
        factor = self.resize / min(height, width)
        image = _resized(image, max(round(height * factor), self.size), max(round(width * factor), self.size))
        top, left = (image.shape[-2] - self.size) // 2, (image.shape[-1] - self.size) // 2
        return image[..., top : top + self.size, left : left + self.size]


def opened(file: str | Path) -> Image.Image:
    """A picture file, read whole.

    Raises:
        UserError: There is none, or it is no picture.
    """
    try:
        with Image.open(file) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{file} is no picture that can be read: {error}") from error


def _tensor(picture: Image.Image | np.ndarray | Tensor) -> Tensor:
    if isinstance(picture, Image.Image):
        picture = np.array(picture.convert("RGB"))
    if isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.shape[-1] == 3:
        picture = torch.from_numpy(picture).permute(2, 0, 1)
    if not isinstance(picture, Tensor) or picture.ndim not in (3, 4) or picture.shape[0] != 3:
        shape = tuple(picture.shape) if isinstance(picture, Tensor | np.ndarray) else type(picture).__name__
        raise UserError(
            f"expected a PIL image, an array (H, W, 3) or a tensor (3, H, W) or (3, T, H, W), found {shape}"
        )
    return picture


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    """Bicubic, antialiased, frame by frame; `(3, H, W)` or `(3, T, H, W)`."""
    if image.shape[-2:] == (height, width):
        return image
    frames = image[None] if image.ndim == 3 else image.movedim(0, 1)  # (T, 3, H, W)
    small = interpolate(frames, (height, width), mode="bicubic", antialias=True)
    small = small.clamp(0, 1) if small.is_floating_point() else small
    return small[0] if image.ndim == 3 else small.movedim(0, 1)

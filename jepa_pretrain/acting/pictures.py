"""Goal pictures from files."""

from pathlib import Path

from PIL import Image
from torch import Tensor

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.images import BrokenPicture, decode


def read_goal(path: str, size: int) -> Tensor:
    """A goal picture from a file, `(1, 3, H, W)` uint8.

    Args:
        path: Of the file.
        size: Height and width that the agent takes.

    Raises:
        UserError: No picture there, or one of another size.
    """
    try:
        picture = decode(bytearray(Path(path).read_bytes()))
    except (OSError, BrokenPicture, Image.DecompressionBombError) as error:
        raise UserError(f"the goal {path} is no picture: {error}") from error
    return sized(picture[None], size, path)


def sized(frames: Tensor, size: int, source: str) -> Tensor:
    """Frames `(B, C, H, W)`, refused where they have another size than the agent sees."""
    if tuple(frames.shape[-2:]) != (size, size):
        found = " x ".join(str(one) for one in reversed(frames.shape[-2:]))
        raise UserError(f"this agent sees pictures of {size} x {size} pixels, those of {source} have {found}")
    return frames

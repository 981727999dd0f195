"""A picture or a video on its way into a shard: decoded once, so that it is known to be whole, and made smaller."""

from collections.abc import Iterator
from io import BytesIO

import numpy as np
import torch
from PIL import Image

from jepa_pretrain.data.clips import is_video, videos
from jepa_pretrain.data.images import BrokenPicture, decode
from jepa_pretrain.data.views import resize


def whole(data: bytes, extension: str, short_side: int | None, quality: int) -> tuple[str, bytes]:
    """What is stored of a picture or video, and its extension: its own bytes, unless it is to become smaller.

    Args:
        data: The encoded bytes.
        extension: What they are.
        short_side: Pixels; larger ones are shrunk to it. None copies all.
        quality: 1 to 100, of those that are shrunk.

    Raises:
        BrokenPicture: It cannot be decoded to its end.
    """
    if is_video(extension):
        return _whole_video(data, extension, short_side, quality)
    image = decode(bytearray(data))
    small = shrunk(image.permute(1, 2, 0).numpy(), short_side)
    if small.shape[:2] == image.shape[1:]:
        return extension, data
    out = BytesIO()
    Image.fromarray(small).save(out, "JPEG", quality=quality)
    return "jpg", out.getvalue()


def _whole_video(data: bytes, extension: str, short_side: int | None, quality: int) -> tuple[str, bytes]:
    height, width = videos().check(data)
    if short_side is None or min(height, width) <= short_side:
        return extension, data
    from jepa_pretrain.data.encode import encode

    with videos().opened(BytesIO(data)) as video:
        return "mp4", encode(smaller(video.walk(), short_side), video.rate, crf_of(quality))


def smaller(frames: Iterator[tuple[float, np.ndarray]], short_side: int | None) -> Iterator[tuple[float, np.ndarray]]:
    """Frames (H, W, 3) with their times, shrunk one by one to an even size, which players like; one size for all."""
    size: tuple[int, ...] | None = None
    for seconds, pixels in frames:
        if size not in (None, pixels.shape):
            raise BrokenPicture("its frames change their size")
        size = pixels.shape
        yield seconds, shrunk(pixels, short_side, even=True)


def shrunk(pixels: np.ndarray, short_side: int | None, even: bool = False) -> np.ndarray:
    """Pixels (H, W, 3) whose short side is at most `short_side`.

    Args:
        pixels: uint8.
        short_side: Pixels; None changes nothing.
        even: Round the sides of what is shrunk to even numbers.
    """
    if short_side is None or min(pixels.shape[:2]) <= short_side:
        return pixels
    unit, factor = 1 + even, short_side / min(pixels.shape[:2])
    height, width = (max(round(side * factor / unit), 1) * unit for side in pixels.shape[:2])
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
    return resize(image, height, width).permute(1, 2, 0).numpy()


def crf_of(quality: int) -> int:
    """x264's rate factor for a quality of 1 to 100: 18 at 90, where a difference is hard to see."""
    return min(round(18 + (90 - quality) / 3), 51)

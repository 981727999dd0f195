"""Bytes to RGB pictures: `decode` gives (3, H, W) uint8 for whatever a data set may hold."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
import torch
import torchvision  # noqa: F401  registers torch.ops.image
from PIL import Image
from torch import Tensor

from jepa_pretrain.untrusted import printable

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "tif", "tiff", "gif", "jp2")
Image.init()  # loads the plug-ins that `FORMATS` names
RGB = 3  # torchvision's ImageReadMode.RGB
MAX_PIXELS = 100_000_000
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # Pillow's modes of 16-bit grey pictures; its own conversion clips
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF", "JPEG2000")  # others run programs (EPS: gs)
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error)
DAMAGE += (zlib.error, Image.DecompressionBombError, RuntimeError, MemoryError, AssertionError, ZeroDivisionError)


class BrokenPicture(Exception):
    """The bytes of one sample are no picture that can be used."""


def decode(data: bytearray) -> Tensor:
    """Decodes a picture of any common format and colour mode.

    Args:
        data: The encoded bytes.

    Returns:
        (3, H, W) uint8, RGB; transparency is dropped, 16-bit depth becomes 8.

    Raises:
        BrokenPicture: The bytes cannot be decoded, or hold more than 100 megapixels.
    """
    if data[:3] == b"\xff\xd8\xff":
        size = jpeg_size(data)
        _refuse_giant(*size)
        return _jpeg(data) if all(size) else _with_pillow(data)  # a giant must not hide; Pillow knows its size first
    return _with_pillow(data)


def jpeg_size(data: bytes | bytearray) -> tuple[int, int]:
    """Width and height from a JPEG's frame header (ITU T.81, B.2.2); (0, 0) where none is found.

    libjpeg reads over stray bytes between two segments; a size behind such is not looked for here.
    """
    at, end = 2, len(data) - 9
    while at < end:
        if data[at] != 0xFF or data[at + 1] == 0x00:
            return 0, 0
        marker = data[at + 1]
        if marker in START_OF_FRAME:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        if marker == 0xFF or 0xD0 <= marker <= 0xD9 or marker == 0x01:
            at += 1 if marker == 0xFF else 2
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0


def _refuse_giant(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BrokenPicture(f"{width} x {height} pixels are more than {MAX_PIXELS // 1_000_000} megapixels")


def _with_turbo(data: bytearray) -> Tensor:
    """Through libjpeg-turbo; what it refuses, Pillow may still read. (Not so for PNG: a damaged one crashes
    torchvision's decoder, and with it the worker.) The operator is called itself: its wrapper costs as much as a
    small picture's decoding.
    """
    try:
        return torch.ops.image.decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), RGB, False)
    except RuntimeError:
        return _with_pillow(data)


def _with_pillow(data: bytearray) -> Tensor:
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            _refuse_giant(*picture.size)
            pixels = _rgb(picture)
    except DAMAGE as error:
        reason = "not a picture" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise BrokenPicture(printable(reason or type(error).__name__)) from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _rgb(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8."""
    if picture.mode in DEEP:
        deep = np.asarray(picture)
        grey = (deep >> 8 if deep.max(initial=0) > 255 else deep).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(picture.convert("RGB"))


def choose_jpeg() -> Callable[[bytearray], Tensor]:
    """The quickest decoder at hand. torchvision announces the end of its decoders; without them, Pillow does it all."""
    return _with_turbo if hasattr(torch.ops.image, "decode_jpeg") else _with_pillow


_jpeg = choose_jpeg()

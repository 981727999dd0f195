"""Whatever a data set holds becomes RGB uint8, or is refused as broken."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from small_shards import encoded, jpeg

from jepa_pretrain.data import images
from jepa_pretrain.data.images import BrokenPicture, decode, jpeg_size

RNG = np.random.default_rng(0)
SMOOTH = np.asarray(Image.fromarray(RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((24, 20), Image.BICUBIC))


KINDS = {
    "JPEG": ["RGB", "L", "1", "CMYK", "YCbCr"],
    "PNG": ["RGB", "L", "P", "RGBA", "LA", "1"],
    "TIFF": ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "YCbCr"],
    "GIF": ["RGB", "L", "P", "RGBA", "1"],
    "WEBP": ["RGB", "RGBA"],
    "BMP": ["RGB", "L", "P", "1"],
}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in KINDS.items() for mode in modes])
def test_every_mode_and_format_matches_pillow(kind: str, mode: str):
    data = encoded(Image.fromarray(SMOOTH).convert(mode), kind)
    wanted = np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)
    got = decode(bytearray(data))
    assert got.dtype == torch.uint8
    assert got.shape == (3, 20, 24)
    assert np.abs(got.permute(1, 2, 0).numpy().astype(int) - wanted).mean() < 2


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_without_torchvisions_operator(mode: str, monkeypatch: pytest.MonkeyPatch):
    data = bytearray(encoded(Image.fromarray(SMOOTH).convert(mode), "JPEG"))
    with_operator = decode(data)
    assert images.choose_jpeg() is images._jpeg, "torchvision has the operator here"
    monkeypatch.setattr(torch.ops, "image", object())
    monkeypatch.setattr(images, "_jpeg", images.choose_jpeg())
    without = decode(data)
    assert without.shape == with_operator.shape
    assert (without.int() - with_operator.int()).abs().float().mean() < 2
    with pytest.raises(BrokenPicture):
        decode(jpeg()[:150])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind: str):
    deep = np.linspace(0, 65535, 400).reshape(20, 20).astype(np.uint16)
    got = decode(bytearray(encoded(Image.fromarray(deep), kind)))
    assert got.shape == (3, 20, 20)
    assert np.abs(got[0].numpy().astype(int) - (deep >> 8)).max() <= 1


def test_one_pixel():
    for kind in ("JPEG", "PNG"):
        assert decode(bytearray(encoded(Image.new("RGB", (1, 1), "red"), kind))).shape == (3, 1, 1)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"this is a text file named .jpg", jpeg()[:150], b"\0" * 2000])
def test_what_is_no_picture_is_broken(data: bytes):
    with pytest.raises(BrokenPicture):
        decode(bytearray(data))


def test_a_damaged_png_is_broken():
    data = bytearray(encoded(Image.fromarray(SMOOTH), "PNG"))
    data[60:70] = b"\0" * 10
    with pytest.raises(BrokenPicture):
        decode(data)


def test_giants_are_refused_before_they_are_decoded():
    head = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    chunks = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100))):
        chunks += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    with pytest.raises(BrokenPicture, match=r"megapixels|bomb"):
        decode(bytearray(chunks))
    giant = bytearray(jpeg())
    at = giant.index(b"\xff\xc0") + 5
    giant[at : at + 4] = struct.pack(">HH", 60000, 60000)
    with pytest.raises(BrokenPicture, match="megapixels"):
        decode(giant)


def test_the_size_is_found_behind_other_headers():
    picture = Image.fromarray(SMOOTH)
    exif = picture.getexif()
    exif[270] = "x" * 3000
    out = BytesIO()
    picture.save(out, "JPEG", exif=exif, progressive=True)
    assert jpeg_size(out.getvalue()) == (24, 20)
    assert jpeg_size(b"\xff\xd8\xff\xe0") == (0, 0)

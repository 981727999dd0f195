"""Files as a stranger with bad intentions would make them; small, written by hand."""

import gzip
import io
import json
import struct
import tarfile
import zlib
from pathlib import Path

from PIL import Image
from safetensors.torch import load_file, save_file
from small_shards import numbered, write_tar

from jepa_pretrain.interop import export
from jepa_pretrain.models.vit import ViT

BLOCK = 512


def header(name: str = "a.jpg", size: bytes = b"00000000000\0", kind: bytes = b"0") -> bytes:
    """A USTAR header with any size field and a right checksum."""
    head = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    head[124:136], head[156:157] = size, kind
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def sparse(path: Path, head: bytes, size: int) -> Path:
    """A tar whose one member has `size` bytes of nothing, which take no space on the disk."""
    path.write_bytes(head)
    with open(path, "r+b") as file:
        file.truncate(BLOCK + size + 2 * BLOCK)
    return path


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, pixels: bytes | None = None) -> bytearray:
    """A grey PNG of any claimed size, with extra chunks."""
    rows = zlib.compress(pixels if pixels is not None else b"\0" * 100)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = b"".join(chunks) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return bytearray(b"\x89PNG\r\n\x1a\n" + head + body)


def picture(kind: str, size: tuple[int, int] = (16, 12), **options: object) -> bytearray:
    out = io.BytesIO()
    gradient = Image.linear_gradient("L").resize(size)
    Image.merge("RGB", (gradient, gradient.rotate(180), gradient)).save(out, kind, **options)
    return bytearray(out.getvalue())


def patched(data: bytearray, at: int, new: bytes) -> bytearray:
    return data[:at] + new + data[at + len(new) :]


def giants() -> dict[str, bytearray]:
    """Small files that claim 121 megapixels, which Pillow alone would accept, and some that claim thousands."""
    side = 11_000
    jpeg, webp = picture("JPEG"), picture("WEBP", lossless=True)
    frame = jpeg.index(b"\xff\xc0") + 5
    large = patched(jpeg, frame, struct.pack(">HH", side, side))
    cut = jpeg.index(b"\xff\xc0")
    tiff = picture("TIFF")
    for tag in (256, 257, 278):  # width, length, rows of a strip: one SHORT or LONG each
        at = next(i for i in range(len(tiff)) if tiff[i : i + 2] == struct.pack("<H", tag) and tiff[i + 4] == 1)
        tiff = patched(tiff, at + 2, struct.pack("<HII", 4, 1, side))
    assert webp[12:16] == b"VP8L"
    return {
        "jpeg": large,
        "jpeg of 4,290 megapixels": patched(jpeg, frame, struct.pack(">HH", 65500, 65500)),
        "jpeg with a stray byte before the frame": large[:cut] + b"\0\0\0" + large[cut:],
        "png": png(side, side),
        "png of 3,600 megapixels": png(60000, 60000),
        "gif": patched(patched(picture("GIF"), 6, struct.pack("<HH", side, side)), 0, b"GIF89a"),
        "webp": patched(webp, 21, struct.pack("<I", (side - 1) << 14 | (side - 1))),
        "bmp": patched(picture("BMP"), 18, struct.pack("<ii", side, side)),
        "tiff": tiff,
        "ppm": bytearray(b"P6 11000 11000 255\n" + b"\0" * 100),
        "jp2": patched(picture("JPEG2000"), 48, struct.pack(">II", side, side)),
    }


def bomb(path: Path, unpacked: int) -> Path:
    """A `.tar.gz` of zeros, made of members of one megabyte each so that it is quickly written."""
    member = gzip.compress(bytes(1 << 20), 9)
    path.write_bytes(gzip.compress(header("a.jpg", b"77777777777\0")) + member * (unpacked >> 20))
    return path


def indexed(folder: Path, count: int = 3, **changes: object) -> Path:
    """A folder with one shard of `count` samples and an index, of which some values are changed."""
    folder.mkdir(exist_ok=True)
    path = write_tar(folder / "train-000000.tar", numbered(0, count))
    shard = {"name": path.name, "samples": count, "bytes": path.stat().st_size, "sha256": ""}
    content = {"format": 1, "classes": [str(n) for n in range(10)], "shards": [shard]}
    for key, value in changes.items():
        (content if key in content else shard)[key] = value
    (folder / "index.json").write_text(json.dumps(content))
    return folder


def exported(folder: Path, weights: dict | None = None, args: dict | None = None, **changes: object) -> Path:
    """A small export, with other weights, other arguments of its class, or other entries in its config."""
    encoder = ViT(image_size=16, patch=4, width=24, depth=2, heads=2)
    export.write(encoder, folder, {"recipe": "demo"})
    config = json.loads((folder / "config.json").read_text())
    config["architecture"]["args"] |= args or {}
    (folder / "config.json").write_text(json.dumps(config | changes))
    if weights:
        save_file(load_file(folder / "model.safetensors") | weights, folder / "model.safetensors")
    return folder

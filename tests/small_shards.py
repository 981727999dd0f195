"""Small shards on disk, written with the standard library so that the package's own writer is not its own judge."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

Samples = list[tuple[str, dict[str, bytes]]]


def jpeg(value: int = 0, size: tuple[int, int] = (16, 16)) -> bytes:
    """A JPEG with a brightness that tells pictures apart."""
    pixels = np.full((*size, 3), (value * 37) % 256, dtype=np.uint8)
    pixels[: size[0] // 2] //= 2
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


def encoded(picture: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


def write_tar(path: Path, samples: Samples, format: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", format=format) as tar:
        for key, fields in samples:
            for extension, data in fields.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def numbered(start: int, count: int) -> Samples:
    """Samples whose label is their number in the whole collection."""
    return [(f"s{n:05d}", {"jpg": jpeg(n), "cls": str(n).encode()}) for n in range(start, start + count)]

"""Small shards on disk, written with the standard library so that the package's own writer is not its own judge."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

Samples = list[tuple[str, dict[str, bytes]]]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


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


@pytest.fixture
def shards(tmp_path: Path) -> Callable[..., str]:
    """Makes shards of given sizes and returns their pattern."""

    def make(*sizes: int) -> str:
        start = 0
        for shard, size in enumerate(sizes):
            write_tar(tmp_path / f"train-{shard:06d}.tar", numbered(start, size))
            start += size
        return str(tmp_path / "train-*.tar")

    return make

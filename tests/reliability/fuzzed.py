"""The readers of strangers' files, each with whole files to damage and the way to read them."""

import io
import json
import tarfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from reliability.crafted import exported, header, indexed, picture
from small_shards import numbered, write_tar

from jepa_pretrain import FrozenEncoder
from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.archive import Shard, TooLarge
from jepa_pretrain.data.fetch import local
from jepa_pretrain.data.images import MAX_PIXELS, decode
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.labels import CLASSES, label_of
from jepa_pretrain.interop.export import from_checkpoint, write
from jepa_pretrain.models.vit import ViT
from jepa_pretrain.report import contents, curves, outcomes, sections


class Reader(NamedTuple):
    """One reader.

    Args:
        whole: Files that it reads rightly.
        read: Reads the damaged bytes, with a folder to put them in; asserts that what it returns makes sense.
        rounds: How many inputs it is tried on in every test run.
    """

    whole: list[bytes]
    read: Callable[[bytes, Path], None]
    rounds: int = 300


def tars(folder: Path) -> list[bytes]:
    found = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        key = "k" * (60 if kind == tarfile.USTAR_FORMAT else 120)
        samples = [(f"{key}{n}", {"jpg": b"x" * 600, "cls": b"1"}) for n in range(2)]
        found.append(write_tar(folder / "a.tar", samples, kind).read_bytes())
    return [*found, header("s.jpg", kind=b"S") + bytes(1024), header("a.jpg", b"\x80" + bytes(10) + b"\2") + b"xx"]


def read_tar(data: bytes, folder: Path) -> None:
    (folder / "a.tar").write_bytes(data)
    shard = Shard(folder / "a.tar")
    for number, key in enumerate(shard.keys):
        assert key.isprintable()
        try:
            found = sum(map(len, shard.fields(number).values()))
        except TooLarge:
            continue
        assert found <= len(data)


def read_gzip(data: bytes, folder: Path) -> None:
    (folder / "a.tar.gz").write_bytes(data)
    Shard(local(str(folder / "a.tar.gz"), str(folder / "cache")))
    for copy in (folder / "cache").glob("*.tar"):
        copy.unlink()


def read_picture(data: bytes, folder: Path) -> None:
    image = decode(bytearray(data))
    assert image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3 and image[0].numel() <= MAX_PIXELS
    image.max()  # touches every byte


def pictures() -> list[bytes]:
    kinds = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000"]
    plain = [bytes(picture(kind)) for kind in kinds]
    jpegs = [picture("JPEG", progressive=True), picture("JPEG", (40, 30), subsampling=0, restart_marker_blocks=1)]
    tiffs = [picture("TIFF", compression=one) for one in ("tiff_lzw", "jpeg", "tiff_deflate", "packbits")]
    return plain + list(map(bytes, jpegs + tiffs + [picture("PNG", optimize=True), picture("WEBP", lossless=True)]))


def jpegs() -> list[bytes]:
    sizes = [(8, 8), (16, 16), (70, 50)]
    return [bytes(picture("JPEG", size, subsampling=n, progressive=bool(n))) for n, size in enumerate(sizes)]


def read_label(data: bytes, folder: Path) -> None:
    path = write_tar(folder / "a.tar", [("a", {"cls": data})])
    assert -1 <= label_of(Shard(path), 0, 0) < CLASSES


def read_index(data: bytes, folder: Path) -> None:
    (folder / "shards" / "index.json").write_bytes(data)
    index = open_index(str(folder / "shards"))
    assert all(entry.address == f"{folder}/shards/train-000000.tar" for entry in index.shards)
    assert all(0 <= entry.samples <= 20 for entry in index.shards) and all(one.isprintable() for one in index.classes)


def read_config(data: bytes, folder: Path) -> None:
    (folder / "export" / "config.json").write_bytes(data)
    FrozenEncoder.load(folder / "export")(torch.zeros(1, 3, 16, 16))


def read_weights(data: bytes, folder: Path) -> None:
    (folder / "other" / "model.safetensors").write_bytes(data)
    assert FrozenEncoder.load(folder / "other")(torch.zeros(1, 3, 16, 16)).shape == (1, 16, 24)


def read_checkpoint(data: bytes, folder: Path) -> None:
    (folder / "a.ckpt").write_bytes(data)
    encoder, _ = from_checkpoint(folder / "a.ckpt")
    assert all(tensor.isfinite().all() for tensor in encoder.state_dict().values())


def read_run(data: bytes, folder: Path) -> None:
    """A run folder's small files, all with the same damaged bytes."""
    for name in ("config.yaml", "metrics.csv", "eval/a.json"):
        (folder / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "run" / name).write_bytes(data)
    run = folder / "run"
    results, damaged = outcomes.results(run)
    assert all(text.isprintable() for text in damaged) and isinstance(sections.probe_table(results, run), str)
    refused = []
    for read in (
        lambda: contents.source_of(contents.recipe(run)),
        lambda: curves.warnings(curves.read(run / "metrics.csv")),
    ):
        try:
            read()
        except UserError as error:
            refused.append(error)
    if len(refused) == 2:
        raise refused[0]


def checkpoint(folder: Path) -> bytes:
    encoder = ViT(image_size=8, patch=4, width=8, depth=1, heads=2)
    weights = {f"target.module.{name}": tensor for name, tensor in encoder.state_dict().items()}
    entry = {"prefix": "target.module.", "config": {"class": "ViT", "args": encoder.config}, "provenance": {"step": 1}}
    out = io.BytesIO()
    torch.save({"state_dict": weights, "export": entry, "callbacks": {"bank": [torch.zeros(3)]}}, out)
    return out.getvalue()


def videos() -> list[bytes]:
    from small_videos import frames, video

    coded = [video(frames(12), options={"g": "4"}), video(frames(6), "avi", "mpeg4", "yuv420p")]
    uneven = video(frames(8), "webm", "libvpx-vp9", "yuv420p", times=[0, 3, 11, 12, 20, 40, 41, 60])
    return [*coded, uneven, video(frames(9), "matroska", "mpeg4", "yuv420p", turned=90)]


def read_video(data: bytes, folder: Path) -> None:
    from jepa_pretrain.data.spans import Span
    from jepa_pretrain.data.videos import decode_clips

    for taken in decode_clips(bytearray(data), Span(4), [0.0, 0.9]):
        clip = taken[0]
        assert clip.dtype == torch.uint8 and clip.shape[:2] == (4, 3) and clip[0, 0].numel() <= MAX_PIXELS
        clip.max()


def readers(folder: Path) -> dict[str, Reader]:
    """All of them; their surroundings are made in `folder`."""
    export, shards = exported(folder / "export"), indexed(folder / "shards", 3)
    write(ViT(image_size=16, patch=4, width=24, depth=1, heads=2), folder / "other", {"step": 1})
    packed = write_tar(folder / "b.tar.gz", numbered(0, 2)).read_bytes()
    run = json.dumps({"protocol": "knn", "encoder": "e", "top1": 5.5, "interval": [1, 2], "test_samples": 3})
    recipe = "data:\n  init_args:\n    train: a.tar\n    masker: {class_path: x, init_args: {}}\nl: &l [1]\nm: *l\n"
    filmed = {"video": Reader(videos(), read_video, 200)} if find_spec("av") else {}
    return filmed | {
        "tar": Reader(tars(folder), read_tar),
        "gzip": Reader([packed], read_gzip),
        "index": Reader([(shards / "index.json").read_bytes()], read_index),
        "picture": Reader(pictures(), read_picture, 1500),
        "jpeg": Reader(jpegs(), read_picture, 1500),
        "label": Reader([b"3", b"-1\n", b" 999999 "], read_label),
        "config": Reader([(export / "config.json").read_bytes()], read_config, 50),
        "weights": Reader([(folder / "other" / "model.safetensors").read_bytes()], read_weights, 50),
        "checkpoint": Reader([checkpoint(folder)], read_checkpoint, 50),
        "run": Reader([run.encode(), recipe.encode(), b"step,train/loss,train/rank\n1,2,3\n2,,4\n"], read_run),
    }

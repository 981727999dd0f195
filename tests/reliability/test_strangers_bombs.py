"""Files that are small and claim to be huge: one clear line, and memory that stays bounded."""

import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image
from reliability.bounded import MIB, in_child
from reliability.crafted import bomb, chunk, exported, giants, header, indexed, patched, png, sparse
from small_shards import write_tar

from jepa_pretrain import FrozenEncoder
from jepa_pretrain.data import fetch, headers
from jepa_pretrain.data.archive import Shard, TooLarge
from jepa_pretrain.data.fetch import local
from jepa_pretrain.data.images import decode
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.labels import label_of
from jepa_pretrain.report import contents

FEW = 100 * MIB  # far below what each of these files claims


@pytest.mark.parametrize(("kind", "data"), giants().items(), ids=giants())
def test_a_giant_picture_is_refused_before_it_is_decoded(kind: str, data: bytearray):
    outcome = in_child(decode, data)
    assert outcome.error.startswith("BrokenPicture") and ("megapixels" in outcome.error or "bomb" in outcome.error)
    assert outcome.peak < FEW


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_huge_compressed_text_or_profile(kind: bytes):
    packed = zlib.compress(bytes(100 * MIB), 1)
    between = b"k\0\1\0\0\0" if kind == b"iTXt" else b"k\0\0"
    outcome = in_child(decode, png(8, 8, chunk(kind, between + packed), pixels=bytes(72)))
    assert "too large" in outcome.error and outcome.peak < FEW


def test_more_pixels_than_the_header_says_are_not_unpacked():
    outcome = in_child(decode, png(8, 8, pixels=bytes(150 * MIB)))
    assert outcome.error == "" and outcome.peak < FEW


def test_a_picture_that_needs_a_program_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pillow draws EPS with Ghostscript."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "EPS")
    assert in_child(decode, bytearray(out.getvalue())).error == "BrokenPicture: not a picture"
    assert not (tmp_path / "ran").exists()


HUGE = {
    "8 EB in base 256": (header(size=b"\x80" + (1 << 63).to_bytes(11, "big")), "truncated"),
    "a negative size": (header(size=b"-0000001024\0"), "damaged"),
    "a negative size in base 256": (header(size=b"\xff" * 12), "negative size"),
    "a long name of 8 GB": (header(size=b"77777777777\0", kind=b"L"), "claims 8,589,934,591 bytes"),
    "a pax header of 8 GB": (header(size=b"77777777777\0", kind=b"x"), "claims 8,589,934,591 bytes"),
    "underscores in a size": (header(size=b"1_000_000\0\0\0"), "damaged"),
}


@pytest.mark.parametrize(("head", "message"), HUGE.values(), ids=HUGE)
def test_a_member_that_lies_about_its_size(head: bytes, message: str, tmp_path: Path):
    """A negative size once led back to the same header, for ever."""
    path = sparse(tmp_path / "a.tar", head, 64 * MIB)
    outcome = in_child(Shard, path)
    assert outcome.error.startswith("UserError: shard a.tar") and message in outcome.error
    assert outcome.peak < FEW


def test_a_chain_of_extended_headers_is_no_recursion(tmp_path: Path):
    long_name = header("././@LongLink", b"00000000002\0", b"L") + b"x\0".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(long_name * 5000 + header("y.jpg"))
    assert in_child(Shard, tmp_path / "a.tar").error == ""


def test_a_picture_and_a_label_of_ten_gigabytes(tmp_path: Path):
    size = 10 << 30
    picture_tar = Shard(sparse(tmp_path / "a.tar", header("a.jpg", b"\x80" + size.to_bytes(11, "big")), size))
    with pytest.raises(TooLarge, match="10,737,418,240 bytes"):
        picture_tar.read(0, "jpg")
    label = Shard(sparse(tmp_path / "b.tar", header("a.cls", b"\x80" + size.to_bytes(11, "big")), size))
    assert "it is no label" in in_child(label_of, label, 0, 0).error


def test_a_shard_of_countless_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(headers, "MEMBERS", 100)
    (tmp_path / "a.tar").write_bytes(header("a.jpg") * 101)
    assert "more than 100 files" in in_child(Shard, tmp_path / "a.tar").error


def test_a_new_extension_for_every_sample(tmp_path: Path):
    """The table of samples and extensions would have had 144 million places."""
    (tmp_path / "a.tar").write_bytes(b"".join(header(f"s{n}.{n}") for n in range(12_000)))
    outcome = in_child(Shard, tmp_path / "a.tar")
    assert "names must hold no other dots" in outcome.error and outcome.peak < FEW


def test_a_gzip_bomb_fills_neither_disk_nor_memory(tmp_path: Path):
    path = bomb(tmp_path / "a.tar.gz", 4 << 30)
    outcome = in_child(local, str(path), str(tmp_path / "cache"))
    assert "more than 100 times its size, like a bomb" in outcome.error and outcome.peak < FEW
    assert not [one for one in (tmp_path / "cache").iterdir() if one.suffix != ".lock"]


def test_well_packed_shards_that_are_no_bombs(tmp_path: Path):
    write_tar(tmp_path / "a.tar.gz", [(f"s{n}", {"bmp": bytes(30_000)}) for n in range(1000)])
    assert len(Shard(local(str(tmp_path / "a.tar.gz"), str(tmp_path / "cache")))) == 1000


@pytest.mark.parametrize("command", ["cat /dev/zero", "head -c 30000000 /dev/zero; exec sleep 600"])
def test_a_stream_that_does_not_end(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The second command goes on without a word; it is stopped and not waited for."""
    monkeypatch.setattr(fetch, "LARGEST", 20 * MIB)
    outcome = in_child(local, f"pipe:{command}", str(tmp_path / "cache"))
    assert "larger than" in outcome.error and outcome.peak < FEW
    assert not list((tmp_path / "cache").glob("*.part*"))


def test_indexes_of_a_gigabyte_and_of_a_million_levels(tmp_path: Path):
    folder = indexed(tmp_path / "a")
    index = folder / "index.json"
    index.write_text('{"shards": ' + "[" * 1_000_000)
    assert "nested too deeply" in in_child(open_index, str(folder)).error
    with open(index, "r+b") as file:
        file.truncate(1 << 30)
    outcome = in_child(open_index, str(folder))
    assert "larger than the 32 MiB" in outcome.error and outcome.peak < FEW
    index.write_text('{"format": 1, "classes": [], "shards": [' + "[]," * 1_000_000 + "[]]}")  # 24 times its size
    outcome = in_child(open_index, str(folder))
    assert "is not an entry" in outcome.error and outcome.peak < 2 * FEW


ARCHITECTURES = {
    "a billion layers": {"depth": 10**9},
    "as many layers as are allowed": {"depth": 512},
    "a million pixels": {"image_size": 10**6},
    "the widest there is": {"width": 65536, "heads": 1},
    "the finest patches": {"image_size": 2048, "patch": 1},
    "a huge hidden layer": {"mlp_ratio": 1e300},
}


@pytest.mark.parametrize("args", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_an_architecture_that_would_not_fit_into_memory(args: dict, tmp_path: Path):
    folder = exported(tmp_path / "export", args=args)
    for place in (folder, f"random:{folder}"):
        outcome = in_child(FrozenEncoder.load, place)
        assert outcome.error.startswith("UserError") and outcome.peak < 2 * FEW, outcome


def test_a_model_that_is_larger_than_its_weights(tmp_path: Path):
    args = {"name": "vit_large_patch16_224", "image_size": 224, "cifar_stem": False}
    folder = exported(tmp_path / "export", architecture={"class": "TimmEncoder", "args": args})
    outcome = in_child(FrozenEncoder.load, folder)
    assert "not of this architecture" in outcome.error and outcome.peak < 500 * MIB  # 1.2 GB


def test_weights_with_a_header_of_eight_exabytes(tmp_path: Path):
    folder = exported(tmp_path / "export")
    path = folder / "model.safetensors"
    whole = bytearray(path.read_bytes())
    for claim in (1 << 63, (1 << 64) - 1, 99_000_000):
        path.write_bytes(patched(whole, 0, struct.pack("<Q", claim)))
        outcome = in_child(FrozenEncoder.load, folder)
        assert "truncated or damaged" in outcome.error and outcome.peak < FEW


def test_a_recipe_that_refers_to_itself_a_billion_times(tmp_path: Path):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (tmp_path / "config.yaml").write_text("\n".join(levels))
    assert "more than 100,000 entries" in in_child(contents.recipe, tmp_path).error
    (tmp_path / "config.yaml").write_text("a: &a [*a]")
    assert "more than 100,000 entries" in in_child(contents.recipe, tmp_path).error


def test_pictures_of_a_hundred_megapixels_are_allowed_and_bounded():
    """The largest that is decoded: what a worker may need at most."""
    out = io.BytesIO()
    Image.new("RGB", (10_000, 10_000)).save(out, "JPEG", quality=10)
    outcome = in_child(decode, bytearray(out.getvalue()))
    assert outcome.error == "" and outcome.peak < 1500 * MIB

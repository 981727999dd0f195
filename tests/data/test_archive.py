"""Tars of every flavour are walked correctly, and damaged ones are named."""

import io
import tarfile
from pathlib import Path

import pytest
from small_shards import jpeg, numbered, write_tar

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.archive import Shard


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_read_in_every_format_with_long_names(tmp_path: Path, format: int):
    folder = "folder.with.dots/" + "d" * 60
    keys = [f"{folder}/{'k' * 60}{number}" for number in range(3)]
    path = write_tar(
        tmp_path / "a.tar", [(key, {"JPG": b"x" * n, "seg.png": b"y"}) for n, key in enumerate(keys)], format
    )
    shard = Shard(path)
    assert shard.keys == keys
    assert [bytes(shard.read(number, "jpg")) for number in range(3)] == [b"", b"x", b"xx"]
    assert shard.fields(1) == {"jpg": b"x", "seg.png": b"y"}
    assert shard.read(1, "cls") is None


def test_very_long_names_and_unicode_go_through_tarfile(tmp_path: Path):
    keys = ["x" * 300, "bildträger-ü"]
    shard = Shard(write_tar(tmp_path / "a.tar", [(key, {"jpg": b"data"}) for key in keys], tarfile.GNU_FORMAT))
    assert shard.keys == keys


def test_links_devices_and_folders_are_ignored_and_never_followed(tmp_path: Path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, kind in (("a.jpg", tarfile.SYMTYPE), ("b.jpg", tarfile.LNKTYPE), ("c.jpg", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(secret)
            tar.addfile(member)
        folder = tarfile.TarInfo("d.jpg")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        real = tarfile.TarInfo("e.jpg")
        real.size = 4
        tar.addfile(real, io.BytesIO(b"real"))
    shard = Shard(tmp_path / "a.tar")
    assert shard.keys == ["e"]
    assert shard.read(0, "jpg") == b"real"


def test_a_tar_that_ends_too_early_is_named_with_both_counts(tmp_path: Path):
    path = write_tar(tmp_path / "cut.tar", numbered(0, 5))
    with tarfile.open(path) as tar:
        end = tar.getmember("s00004.jpg").offset_data + 10
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(UserError, match=r"cut\.tar is truncated.* after 4 whole samples"):
        Shard(path)
    with pytest.raises(UserError, match=r"the index says 5 samples, the tar holds 4"):
        Shard(path, expected=5)


def test_what_is_no_tar_is_named(tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(jpeg() * 10)
    with pytest.raises(UserError, match=r"a\.tar is not a readable tar"):
        Shard(tmp_path / "a.tar")
    with pytest.raises(UserError, match="cannot open shard"):
        Shard(tmp_path / "b.tar")


def test_equal_names_in_a_row_are_an_error(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", [("same", {"jpg": b"1"}), ("same", {"jpg": b"2"})])
    with pytest.raises(UserError, match=r"two members are called same\.jpg"):
        Shard(path)

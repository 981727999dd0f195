"""Packing: what goes in comes out, the same on every run, whatever interrupts it."""

import errno
import hashlib
import json
import os
import signal
import sys
import time
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
import webdataset
from PIL import Image
from small_shards import encoded, jpeg, numbered, write_tar
from torchvision.datasets import VisionDataset

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data import pack as packing
from jepa_pretrain.data import writer
from jepa_pretrain.data.images import decode
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.pack import divide, pack, parse_part
from jepa_pretrain.data.verify import verify


def noisy(seed: int, size: int = 300) -> bytes:
    """A picture of a hundred kilobytes, so that few of them fill a shard of one megabyte."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "BMP")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, 18 pictures, about 5 MiB."""
    for number in range(18):
        place = tmp_path / "source" / ("cat", "dog.s")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"a.b {number}.bmp").write_bytes(noisy(number))
    return tmp_path / "source"


def contents(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir() if path.is_file()}


def test_what_goes_in_comes_out(folder: Path, tmp_path: Path):
    pack(str(folder), str(tmp_path / "out"), shard_mb=1)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert (index["format"], index["samples"], index["classes"], index["bad"]) == (1, 18, ["cat", "dog.s"], [])
    found, labels = set(), []
    for shard in index["shards"]:
        path = tmp_path / "out" / shard["name"]
        assert path.stat().st_size == shard["bytes"] <= 1 << 20
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"]
        samples = list(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False))
        assert len(samples) == shard["samples"]
        found |= {sample["bmp"] for sample in samples}
        labels += [int(sample["cls"]) for sample in samples]
        assert all("." not in sample["__key__"] for sample in samples)
    assert found == {noisy(number) for number in range(18)}, "bytes are copied unchanged"
    assert sorted(labels) == [0] * 9 + [1] * 9
    assert labels != sorted(labels), "classes are mixed"
    assert open_index(str(tmp_path / "out")).samples == 18


def test_every_run_is_byte_identical_alone_or_in_parts(folder: Path, tmp_path: Path):
    pack(str(folder), str(tmp_path / "one"), shard_mb=1, workers=1)
    pack(str(folder), str(tmp_path / "two"), shard_mb=1, workers=3)
    assert len(contents(tmp_path / "one")) > 4
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    for part in ("2/3", "3/3", "1/3"):
        assert not (tmp_path / "parts" / "index.json").exists()
        pack(str(folder), str(tmp_path / "parts"), shard_mb=1, part=part)
    assert contents(tmp_path / "one") == contents(tmp_path / "parts")


def test_a_killed_packing_goes_on_without_doing_things_twice(folder: Path, tmp_path: Path):
    pack(str(folder), str(tmp_path / "whole"), shard_mb=1)
    out = tmp_path / "out"
    pack(str(folder), str(out), shard_mb=1, part="1/2")
    (out / ".train-000001.tar.part-99").write_bytes(b"half")  # what a killed process leaves
    done = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    pack(str(folder), str(out), shard_mb=1)
    assert contents(out) == contents(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in done} == done


def pack_slowly(folder: str, out: str, printed: str) -> None:
    """What the interrupted process does; ends with 130 on Ctrl-C, as the command line will."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children ignore it otherwise
    whole = packing.whole

    def slow_after_the_first(*given):
        if list(Path(out).glob("*.tar")):
            time.sleep(4)  # however busy the machine is, the interruption comes before the last shard
        return whole(*given)

    packing.whole = slow_after_the_first
    sys.stdout = open(printed, "w", buffering=1)  # noqa: SIM115 - for the rest of this process
    try:
        pack(folder, out, shard_mb=1)
    except KeyboardInterrupt:
        os._exit(130)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_interrupting_leaves_no_half_written_shard(folder: Path, tmp_path: Path, ending: signal.Signals):
    out, printed = tmp_path / "out", tmp_path / "printed"
    process = get_context("fork").Process(target=pack_slowly, args=(str(folder), str(out), str(printed)))
    process.start()
    limit = time.monotonic() + 60
    while not list(out.glob("*.tar")) and time.monotonic() < limit:
        time.sleep(0.02)
    os.kill(process.pid, ending)
    process.join(30)
    assert 0 < len(list(out.glob("*.tar"))) < 6
    assert not (out / "index.json").exists()
    if ending == signal.SIGINT:
        assert process.exitcode == 130
        assert "run the same to go on" in printed.read_text()
        assert not list(out.glob(".*.part-*"))
    pack(str(folder), str(out), shard_mb=1)
    pack(str(folder), str(tmp_path / "whole"), shard_mb=1)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_full_disk_is_one_clear_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, written = writer.TarWriter._write, []

    def full(self: writer.TarWriter, data: bytes) -> None:
        written.append(len(data))
        if sum(written) > 2_500_000:
            with writer._told_when_full(self.path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, data)

    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"no space left .*run the same again"):
        patch.setattr(writer.TarWriter, "_write", full)
        pack(str(folder), str(out), shard_mb=1, workers=1)
    assert 0 < len(list(out.glob("*.tar"))) < 6
    assert not list(out.glob(".*.part-*"))
    pack(str(folder), str(out), shard_mb=1)
    assert json.loads((out / "index.json").read_text())["samples"] == 18


def test_bad_files_are_listed_counted_and_left_out(folder: Path, tmp_path: Path, capsys):
    (folder / "cat" / "text.jpg").write_text("not a picture at all")
    (folder / "cat" / "cut.jpg").write_bytes(jpeg()[:120])
    (folder / "cat" / "notes.txt").write_text("ignored")
    pack(str(folder), str(tmp_path / "out"))
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["samples"] == 18
    assert sorted(bad["name"] for bad in index["bad"]) == ["cat/cut.jpg", "cat/text.jpg"]
    assert "left out: cat/text.jpg: not a picture" in capsys.readouterr().out


def test_flat_folders_have_no_labels(tmp_path: Path):
    (tmp_path / "flat").mkdir()
    for number in range(3):
        (tmp_path / "flat" / f"{number}.jpg").write_bytes(jpeg(number))
    pack(str(tmp_path / "flat"), str(tmp_path / "out"))
    index = open_index(str(tmp_path / "out"))
    assert (index.samples, index.classes) == (3, [])
    assert set(index.shards[0].open().spans) == {"jpg"}


def test_shrinking(folder: Path, tmp_path: Path):
    pack(str(folder), str(tmp_path / "out"), short_side=50, quality=80)
    shard = open_index(str(tmp_path / "out")).shards[0].open()
    sizes = {Image.open(BytesIO(shard.read(number, "jpg"))).size for number in range(18)}
    assert sizes == {(50, 50)}


def test_splits_share_a_folder_and_its_classes(folder: Path, tmp_path: Path):
    out = str(tmp_path / "out")
    pack(str(folder), out, shard_mb=1)
    pack(str(folder), out, split="val")
    index = open_index(out)
    assert index.samples == 36
    assert open_index(f"{out}/val-*.tar").samples == 18
    (folder / "emu").mkdir()
    (folder / "emu" / "a.jpg").write_bytes(jpeg())
    with pytest.raises(UserError, match=r"another source|other classes"):
        pack(str(folder), out, split="test")


def test_another_source_or_division_is_refused(folder: Path, tmp_path: Path):
    out = str(tmp_path / "out")
    pack(str(folder), out, shard_mb=1)
    with pytest.raises(UserError, match="another source or another division"):
        pack(str(folder), out, shard_mb=2)


def test_existing_shards_are_packed_again_with_all_members(tmp_path: Path):
    samples = [(key, fields | {"json": b"{}"}) for key, fields in numbered(0, 7)]
    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in" / "a.tar", samples[:3])
    write_tar(tmp_path / "in" / "b.tar.gz", samples[3:])
    (tmp_path / "in" / "classes.txt").write_text("\n".join("abcdefg"))
    pack(str(tmp_path / "in"), str(tmp_path / "out"))
    index = open_index(str(tmp_path / "out"))
    shard = index.shards[0].open()
    assert index.classes == list("abcdefg")
    assert {bytes(shard.read(number, "jpg")) for number in range(7)} == {fields["jpg"] for _, fields in samples}
    assert sorted(int(shard.read(number, "cls")) for number in range(7)) == list(range(7))
    assert shard.read(0, "json") == b"{}"


def test_torchvision_datasets(tmp_path: Path):
    with pytest.raises(UserError, match="no dataset called Cifar"):
        pack("torchvision:Cifar", str(tmp_path / "out"))
    with pytest.raises(UserError, match="download it with `download`"):
        pack("torchvision:CIFAR10", str(tmp_path / "out"), root=str(tmp_path / "none"))


class Tiny(VisionDataset):
    """Stands in for CIFAR10: pictures in memory, a class each."""

    classes = ("even", "odd")

    def __init__(self, root: str, train: bool = True):
        super().__init__(root)
        self.first = 0 if train else 100

    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (9, 7), (self.first + number, 0, 0)), number % 2


def test_torchvision_datasets_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(vars(torchvision.datasets), "Tiny", Tiny)
    for split in ("train", "val"):
        pack("torchvision:Tiny", str(tmp_path / "out"), split=split, root=str(tmp_path))
    index = open_index(str(tmp_path / "out" / "val-*.tar"))
    assert index.classes == ["even", "odd"]
    shard = index.shards[0].open()
    for number in range(6):
        red = decode(shard.read(number, "png"))[0, 0, 0].item() - 100
        assert int(shard.read(number, "cls")) == red % 2
    assert shard.keys != sorted(shard.keys)


def test_torchvision_folders_are_copied(folder: Path, tmp_path: Path):
    pack("torchvision:ImageFolder", str(tmp_path / "out"), root=str(folder))
    shard = open_index(str(tmp_path / "out")).shards[0].open()
    assert {bytes(shard.read(number, "bmp")) for number in range(18)} == {noisy(number) for number in range(18)}


def test_mistakes_are_explained(tmp_path: Path, folder: Path):
    out = str(tmp_path / "out")
    (tmp_path / "empty").mkdir()
    (tmp_path / "splits" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="no pictures"):
        pack(str(tmp_path / "empty"), out)
    with pytest.raises(UserError, match="holds splits"):
        pack(str(tmp_path / "splits"), out)
    with pytest.raises(UserError, match="no shards match"):
        pack(str(tmp_path / "nothing"), out)
    with pytest.raises(UserError, match="part must be I/N"):
        pack(str(folder), out, part="4/3")
    with pytest.raises(UserError, match="split must be"):
        pack(str(folder), out, split="a/b")


def test_dividing():
    pieces = divide(np.array([10, 5000, 10, 10, 90000, 10]), 8000)
    assert [list(piece) for piece in pieces] == [[0], [1], [2, 3], [4], [5]]
    assert parse_part("2/8") == (1, 8)


def test_verify_finds_one_flipped_byte_and_a_lost_shard(folder: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    pack(str(folder), str(out), shard_mb=1)
    verify(str(out))
    assert capsys.readouterr().out.count("as the index says") == len(list(out.glob("*.tar")))
    data = bytearray((out / "train-000001.tar").read_bytes())
    data[5000] ^= 1
    (out / "train-000001.tar").write_bytes(data)
    (out / "train-000002.tar").unlink()
    with pytest.raises(UserError, match=r"2 of \d shards are damaged or missing"):
        verify(str(out))
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "checksum differs" in lines["train-000001"]
    assert "not there" in lines["train-000002"]
    assert "as the index says" in lines["train-000003"]

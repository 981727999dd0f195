"""Packing, verifying and showing videos."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_videos import VALUES, frames, sound, video, whole

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.archive import Shard
from jepa_pretrain.data.pack import pack
from jepa_pretrain.data.show import CELL, GAP, show
from jepa_pretrain.data.verify import verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with videos of 0.4 to 1.6 seconds, and a picture among them."""
    for name, content in {
        "run/a.mp4": video(frames(40)),
        "run/b.webm": video(frames(10), "webm", "libvpx-vp9", "yuv420p", options={"speed": "8"}),
        "walk/c.AVI": video(frames(26, 48, 64), "avi", "mjpeg", "yuvj444p", options={"qmin": "1", "qmax": "2"}),
        "walk/d.mkv": video(frames(12), "matroska", times=[0, 5, 10, 20, 30, 35, 40, 60, 65, 70, 90, 95]),
    }.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "source" / "run" / "e.png")
    return tmp_path / "source"


def samples(out: Path) -> dict[str, dict[str, bytearray]]:
    """All samples by their source's stem."""
    shards = [Shard(path) for path in sorted(out.glob("*.tar"))]
    return {
        key[9:]: {k: bytes(v) for k, v in one.fields(n).items()} for one in shards for n, key in enumerate(one.keys)
    }


def brightness(data: bytes) -> list[int]:
    return [int(np.abs(np.array(VALUES) - one[-8:, -8:].mean()).argmin()) for one in whole(data)]


def test_bytes_are_copied_unless_told_otherwise(folder: Path, tmp_path: Path):
    pack(str(folder), str(tmp_path / "out"))
    found = samples(tmp_path / "out")
    assert {stem: sorted(fields) for stem, fields in found.items()} == {
        "a": ["cls", "mp4"],
        "b": ["cls", "webm"],
        "c": ["avi", "cls"],
        "d": ["cls", "mkv"],
        "e": ["cls", "png"],
    }
    assert found["d"]["mkv"] == (folder / "walk" / "d.mkv").read_bytes()
    assert {stem: fields["cls"] for stem, fields in found.items()} == dict(
        zip("abcde", b"0 0 1 1 0".split(), strict=True)
    )
    verify(str(tmp_path / "out"))


def test_long_videos_are_cut_and_nothing_is_lost(folder: Path, tmp_path: Path):
    pack(str(folder), str(tmp_path / "out"), clip_seconds=0.4)
    found = samples(tmp_path / "out")
    cut = ["a-0000", "a-0001", "a-0002", "a-0003", "c-0000", "c-0001", "c-0002", "d-0000", "d-0001"]
    assert sorted(found) == sorted([*cut, "b", "e"])
    pieces = [brightness(found[f"a-000{number}"]["mp4"]) for number in range(4)]
    assert pieces == [list(range(first, first + 10)) for first in (0, 10, 20, 30)]
    assert [one for number in range(3) for one in brightness(found[f"c-000{number}"]["mp4"])] == list(range(26))
    assert brightness(found["d-0000"]["mp4"]) + brightness(found["d-0001"]["mp4"]) == list(range(12))
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert (index["samples"], index["bad"]) == (11, [])


def test_larger_videos_are_shrunk_and_keep_their_times(folder: Path, tmp_path: Path):
    pack(str(folder), str(tmp_path / "out"), short_side=24)
    found = samples(tmp_path / "out")
    assert whole(found["c"]["mp4"])[0].shape == (24, 32, 3)
    assert brightness(found["d"]["mp4"]) == list(range(12))
    from jepa_pretrain.data.clips import decode
    from jepa_pretrain.data.spans import Span

    for kind, data in (("mkv", (folder / "walk" / "d.mkv").read_bytes()), ("mp4", found["d"]["mp4"])):
        (taken,) = decode(bytearray(data), kind, Span(frames=9, fps=10), [0.0])
        assert taken.numbers == [0, 2, 3, 4, 6, 6, 7, 9, 9], "its rate varies, before and after"
    assert Image.open(folder / "run" / "e.png").size == (40, 30)


def test_every_run_is_byte_identical_alone_or_in_parts(folder: Path, tmp_path: Path):
    def made(name: str, *parts: str) -> dict[str, str]:
        for part in parts:
            pack(str(folder), str(tmp_path / name), part=part, clip_seconds=0.4, short_side=16)
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / name).glob("*.tar")}

    assert made("one", "1/1") == made("two", "2/2", "1/2")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").glob("*.tar")}
    made("one", "1/1")
    assert before == {path: path.stat().st_mtime_ns for path in before}, "what is done stays"
    with pytest.raises(UserError, match="another division"):
        pack(str(folder), str(tmp_path / "one"), clip_seconds=0.5, short_side=16)


def test_broken_videos_are_listed_and_counted(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    (folder / "run" / "f.mp4").write_bytes(sound())
    (folder / "run" / "g.mp4").write_bytes(b"")
    (folder / "walk" / "h.mp4").write_bytes(video(frames(40))[:2500])
    pack(str(folder), str(tmp_path / "out"), clip_seconds=0.4)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert {bad["name"] for bad in index["bad"]} == {"run/f.mp4", "run/g.mp4", "walk/h.mp4"}
    assert index["samples"] == 11
    assert "left out: run/f.mp4: there is no video in it" in capsys.readouterr().out


def test_a_folder_of_nothing_but_broken_videos_is_an_error(tmp_path: Path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "f.mp4").write_bytes(sound())
    (tmp_path / "source" / "g.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="none of the 2 samples could be packed"):
        pack(str(tmp_path / "source"), str(tmp_path / "out"))


def test_verify_names_a_damaged_video(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    (folder / "run" / "b.webm").unlink()
    pack(str(folder), str(tmp_path / "out"))
    (tmp_path / "out" / "index.json").unlink()
    shard = tmp_path / "out" / "train-000000.tar"
    data = bytearray(shard.read_bytes())
    one = Shard(shard)
    (number,) = [n for n, key in enumerate(one.keys) if key.endswith("-c")]
    offset, size = one.spans["avi"][number].tolist()
    data[offset + 200 : offset + size] = bytes(size - 200)
    shard.write_bytes(data)
    with pytest.raises(UserError, match="1 of 1 shards are damaged"):
        verify(str(tmp_path / "out"))
    assert one.keys[number] in capsys.readouterr().out.replace("\n", "")


def test_the_sheet_shows_a_video_from_beginning_to_end(folder: Path, tmp_path: Path):
    for path in folder.rglob("*.*"):
        if path.name != "a.mp4":
            path.unlink()
    pack(str(folder), str(tmp_path / "out"))
    show(str(tmp_path / "out"), str(tmp_path / "sheet.png"))
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))[GAP : GAP + CELL, GAP : GAP + CELL]
    height = CELL * 32 // 48
    rows = [CELL // 2 - 4, (CELL + height) // 2 - 4]
    columns = [CELL // 2 - 4, CELL - 4]
    seen = [int(np.abs(np.array(VALUES) - sheet[row, column].mean()).argmin()) for row in rows for column in columns]
    assert seen == [0, 13, 26, 39]


def test_only_files_can_be_cut(folder: Path, tmp_path: Path):
    pack(str(folder), str(tmp_path / "out"))
    with pytest.raises(UserError, match="only videos in a folder"):
        pack(str(tmp_path / "out"), str(tmp_path / "again"), clip_seconds=1.0)
    with pytest.raises(UserError, match="more than 0"):
        pack(str(folder), str(tmp_path / "again"), clip_seconds=0.0)

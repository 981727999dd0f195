"""Video decoding: the frames asked for, as a plain decoding of all frames gives them; and no damage passes."""

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from small_videos import VALUES, frames, sound, video, whole

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.archive import Shard
from jepa_pretrain.data.clips import check, decode
from jepa_pretrain.data.images import BrokenPicture
from jepa_pretrain.data.spans import Span
from jepa_pretrain.data.videos import opened

DATA = Path(os.environ.get("JEPA_DATA", "none"))
KEYS = {"g": "6", "keyint_min": "6", "sc_threshold": "0"}  # a key frame every six frames
KINDS = {
    "mp4": ("mp4", "libx264", "yuv444p", KEYS | {"bf": "2"}),
    "open": ("mp4", "libx264", "yuv420p", {"x264-params": "keyint=6:min-keyint=6:scenecut=0:open-gop=1:bframes=3"}),
    "mkv": ("matroska", "libx264", "yuv420p", KEYS | {"bf": "2"}),
    "mov": ("mov", "mjpeg", "yuvj420p", {}),
    "webm": ("webm", "libvpx-vp9", "yuv420p", {"g": "6", "speed": "8"}),
    "avi": ("avi", "mpeg4", "yuv420p", {"g": "6", "bf": "2", "b": "8000000", "qmin": "1", "qmax": "2"}),
    "ts": ("mpegts", "libx264", "yuv420p", KEYS | {"bf": "2"}),
    "mpg": ("mpeg", "mpeg1video", "yuv420p", {"g": "6", "bf": "2", "b": "8000000", "qmin": "1", "qmax": "2"}),
    "raw": ("h264", "libx264", "yuv420p", KEYS | {"bf": "2"}),  # has no times at all: frames count in their order
}


def clip(data: bytes, place: float = 0.0, extension: str = "mp4", **span: float) -> np.ndarray:
    """(T, H, W, 3)"""
    (taken,) = decode(bytearray(data), extension, Span(**span), [place])
    return taken.frames.permute(0, 2, 3, 1).numpy()


def numbers(pixels: np.ndarray) -> list[int]:
    """Which of the numbered frames these are, by their brightness."""
    return [int(np.abs(np.array(VALUES) - one[-8:, -8:].mean()).argmin()) for one in pixels]


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_is_that_of_a_whole_decoding(kind: str):
    data = video(frames(20), *KINDS[kind][:3], options=KINDS[kind][3])
    reference = whole(data)
    assert numbers(np.stack(reference)) == list(range(20)), "the reference itself is in order"
    for first in (0, 3, 5, 6, 7, 11, 17, 19):
        got = clip(data, first / 19.999, frames=1)
        assert np.array_equal(got[0], reference[first]), f"frame {first}"
    got = clip(data, 0.5, frames=7, stride=2)
    assert np.array_equal(got, np.stack(reference[4:17:2])), "seven possible clips, the fourth is central"


def test_decoding_begins_at_the_key_frame_and_ends_with_the_clip(monkeypatch: pytest.MonkeyPatch):
    data = video(frames(40), options=KEYS | {"bf": "0"})
    with opened(BytesIO(data)) as one:
        fed = []
        real = one._decoded
        monkeypatch.setattr(one, "_decoded", lambda packets: real([fed.append(p.pts) or p for p in packets]))
        decoded = one._numbered(one._key_before(25))
        assert next(decoded)[0] == 24
        monkeypatch.undo()
        converted = one.frames([25, 26], 2)
        assert sorted(converted) == [25, 26]
        assert [one._key_before(number) for number in (0, 5, 6, 23, 24, 39)] == [0, 0, 6, 18, 24, 36]


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
def test_a_varying_frame_rate_is_read_by_presentation_time(kind: str):
    times = [0, 10, 20, 100, 110, 200]  # hundredths of a second; the last lasts a tenth, the median step
    data = video(frames(6), kind, times=times)
    assert numbers(clip(data, frames=10, fps=5)) == [0, 2, 2, 2, 2, 3, 4, 4, 4, 4]
    assert numbers(clip(data, 1.0, frames=3, fps=10)) == [4, 4, 5]
    assert numbers(clip(data, frames=3, stride=2)) == [0, 2, 4], "a stride counts frames"


def test_the_rate_asked_for_is_met_whatever_the_videos_is():
    data = video(frames(40), "matroska")  # 25 frames per second; Matroska rounds times to milliseconds
    assert numbers(clip(data, frames=40, fps=25)) == list(range(40))
    assert numbers(clip(data, frames=8, fps=5)) == list(range(0, 40, 5))
    assert numbers(clip(data, frames=6, fps=50)) == [0, 0, 1, 1, 2, 2]


def test_places_are_spread_over_all_possible_clips():
    data = video(frames(20))
    firsts = [numbers(clip(data, place, frames=4))[0] for place in np.linspace(0, 1, 200)]
    assert sorted(set(firsts)) == list(range(17))
    assert max(firsts.count(one) for one in range(17)) <= 13, "evenly"
    assert numbers(clip(data, 1.0, frames=10, fps=25)) == list(range(10, 20))


def test_a_short_video_holds_its_last_frame():
    data = video(frames(3))
    assert numbers(clip(data, 0.7, frames=6)) == [0, 1, 2, 2, 2, 2]
    assert numbers(clip(data, 0.7, frames=4, stride=2)) == [0, 2, 2, 2]
    assert numbers(clip(data, 0.7, frames=4, fps=25)) == [0, 1, 2, 2]
    assert numbers(clip(video(frames(1)), 0.7, frames=3)) == [0, 0, 0]
    assert numbers(clip(video(frames(1)), 0.7, frames=3, fps=5)) == [0, 0, 0]


@pytest.mark.parametrize(("turned", "corner"), [(0, (0, 0)), (90, (1, 0)), (-90, (0, 1)), (180, (1, 1))])
def test_rotation_is_honoured(turned: int, corner: tuple[int, int]):
    """The dark corner goes counterclockwise with the angle: upper left, lower left, ..."""
    (picture,) = clip(video(frames(1), turned=turned))
    assert picture.shape[:2] == ((32, 48) if turned % 180 == 0 else (48, 32))
    corners = {(row, column): picture[-row, -column].mean() for row in (0, 1) for column in (0, 1)}
    assert min(corners, key=corners.get) == corner


@pytest.mark.parametrize("size", [(33, 47), (1, 5), (34, 2)])
def test_odd_sizes(size: tuple[int, int]):
    data = video(frames(3, *size))
    assert np.array_equal(clip(data, frames=3), np.stack(whole(data)))


def test_an_animated_picture_is_a_video_for_clips():
    data = video(frames(5), "gif", "gif", "rgb8")
    assert clip(data, extension="gif", frames=5).shape == (5, 32, 48, 3)
    assert clip(data, extension="gif", frames=1).shape == (1, 32, 48, 3)


@pytest.mark.parametrize("spoilt", ["sound", "nothing", "text", "header", "playlist", "cut"])
def test_what_is_no_video_is_told(spoilt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    good = video(frames(12), options=KEYS)
    (tmp_path / "secret.mp4").write_bytes(good)
    monkeypatch.chdir(tmp_path)
    playlist = "ffconcat version 1.0\nfile secret.mp4\n"  # FFmpeg would play the file that it names
    data = {
        "sound": sound(),
        "nothing": b"",
        "text": b"this is no video" * 99,
        "header": good[:600],
        "playlist": playlist.encode(),
        "cut": good[: len(good) * 2 // 3],
    }[spoilt]
    with pytest.raises(BrokenPicture):
        decode(bytearray(data), "mp4", Span(12), [0.5])
    with pytest.raises(BrokenPicture):
        check(bytearray(data), "mp4")


def test_a_frame_rate_of_zero_does_not_matter_to_a_stride():
    mp4 = bytearray(video(frames(6), options={"bf": "0"}))
    at = mp4.index(b"stts")
    mp4[at + 16 : at + 20] = bytes(4)  # every frame lasts no time
    avi = bytearray(video(frames(6), "avi", "mjpeg", "yuvj420p"))
    at = avi.index(b"strh") + 8 + 20
    avi[at : at + 8] = bytes(8)  # scale and rate of the stream
    for data in (mp4, avi):
        assert numbers(clip(bytes(data), frames=6)) == list(range(6))
        assert len(clip(bytes(data), frames=6, fps=10)) == 6


def test_damage_is_told_where_all_is_decoded_and_hurts_no_other_part():
    data = bytearray(video(frames(40), options=KEYS | {"bf": "0"}, pixels="yuv420p"))
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 100] = b"\xff" * 100
    with pytest.raises(BrokenPicture):
        check(data, "mp4")
    assert numbers(clip(bytes(data), 0.0, frames=2)) == [0, 1]


def test_giants_are_refused(monkeypatch: pytest.MonkeyPatch):
    data = video(frames(4))
    monkeypatch.setattr("jepa_pretrain.data.videos.MAX_PIXELS", 1000)
    with pytest.raises(BrokenPicture, match="48 x 32 pixels"):
        clip(data)
    monkeypatch.setattr("jepa_pretrain.data.videos.MAX_PIXELS", 10_000)
    monkeypatch.setattr("jepa_pretrain.data.videos.MAX_BYTES", 3 * 32 * 48 * 3)
    assert clip(data, frames=3).shape[0] == 3
    with pytest.raises(BrokenPicture, match="may hold"):
        clip(data, frames=4)
    monkeypatch.setattr("jepa_pretrain.data.videos.MAX_FRAMES", 3)
    with pytest.raises(BrokenPicture, match="split"):
        clip(data)


def test_spans_that_cannot_be_are_explained():
    for wrong in ({"frames": 0}, {"stride": 0}, {"fps": 0.0}, {"fps": -1.0}, {"fps": 2.0, "stride": 2}):
        with pytest.raises(UserError, match="span"):
            Span(**wrong)


@pytest.mark.skipif(not (DATA / "video_clips").is_dir(), reason="set JEPA_DATA to a folder with video_clips")
@pytest.mark.parametrize("name", ["video_clips", "weizmann_actions"])
def test_real_videos(name: str):
    shard = Shard(DATA / name / "val-000000.tar")
    for number in range(0, len(shard), 8):
        data = shard.read(number, "mp4")
        reference = whole(bytes(data))
        room = len(reference) - 7
        for place in (0.0, 0.4, 0.9):
            first = int(place * room)
            assert np.array_equal(clip(data, place, frames=8), np.stack(reference[first : first + 8]))

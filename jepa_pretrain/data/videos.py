"""Bytes to clips through PyAV (FFmpeg): from the key frame before a clip to its last frame, and no further.

The packets are listed without decoding them. Their presentation times say which frames there are and which of them a
clip needs, whatever the frame rate and however it varies; decoding begins at a key frame. The bytes may be a
stranger's: only plain container formats are opened (a playlist would make FFmpeg open other files and addresses).
"""

from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import groupby
from typing import BinaryIO

import av
import numpy as np
import torch
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from jepa_pretrain.data.images import BrokenPicture
from jepa_pretrain.data.spans import ROUNDING, Span, Taken
from jepa_pretrain.untrusted import printable

FORMATS = "mov,mp4,avi,matroska,webm,gif,mpeg,mpegts,ogg,asf,flv,mpegvideo,h264,hevc,ivf"
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
DAMAGE = (av.FFmpegError, ValueError, OverflowError, IndexError, MemoryError)
MAX_PIXELS = 40_000_000  # of a frame; 8K has 33 million
MAX_BYTES = 2_000_000_000  # of a decoded clip
MAX_FRAMES = 500_000  # of a video: more than two hours at 60 frames per second
REORDER = 2.0  # seconds by which a packet may lie behind one that is shown later


def decode_clips(data: bytearray, span: Span, places: list[float]) -> list[Taken]:
    """Decodes clips of one video.

    Args:
        data: The encoded bytes.
        span: What a clip covers.
        places: Where each lies, see `Span.choose`.

    Returns:
        Per place, frames (T, C, H, W) uint8 RGB, upright, and their numbers.

    Raises:
        BrokenPicture: There is no video, it is damaged where it is needed, or it is too large.
    """
    with opened(BytesIO(data)) as video:
        chosen = [span.choose(video.times, video.end, place) for place in places]
        frames = video.frames({number for one in chosen for number in one}, span.frames * len(places))
        return [Taken(_stacked([frames[number] for number in one]), one) for one in chosen]


def check(data: bytes) -> tuple[int, int]:
    """Decodes a whole video, to know that it is whole; returns the height and width of its frames."""
    size = None
    with opened(BytesIO(data)) as video:
        for _, pixels in video.walk():
            if size not in (None, pixels.shape[:2]):
                raise BrokenPicture("its frames change their size")
            size = pixels.shape[:2]
    if size is None:
        raise BrokenPicture("no frame of it can be decoded")
    return size


def duration(file: BinaryIO) -> float:
    """Seconds that a video lasts, as its header says; counted where that says nothing."""
    with opened(file, (0.0, 0.0)) as video:
        stated = video.container.duration
    if stated:
        return stated / av.time_base
    file.seek(0)
    with opened(file) as video:
        return video.end - video.times[0]


def _stacked(frames: list[np.ndarray]) -> torch.Tensor:
    """(T, C, H, W) out of (H, W, C) each; the channels stay last in memory."""
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


class opened:
    """An open video as a context; whatever FFmpeg says of its bytes is a `BrokenPicture`.

    Args:
        file: The encoded video, open for reading.
        window: First and last second that are wanted, for long videos in files; None for all of it.
    """

    def __init__(self, file: BinaryIO, window: tuple[float, float] | None = None):
        self.file, self.window = file, window

    def __enter__(self) -> "Video":
        try:
            self.container = av.open(self.file, "r", options=OPTIONS)
        except DAMAGE as error:
            raise BrokenPicture(f"not a video: {_reason(error)}") from None
        try:
            return Video(self.container, self.window)
        except DAMAGE as error:
            self.container.close()
            raise BrokenPicture(_reason(error)) from None
        except BrokenPicture:
            self.container.close()
            raise

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.container.close()
        if isinstance(error, DAMAGE):
            raise BrokenPicture(_reason(error)) from None


def _reason(error: BaseException) -> str:
    words = error.strerror if isinstance(error, av.FFmpegError) else str(error)
    return printable(words or type(error).__name__)


class Video:
    """The video stream of a container: the times of its frames, and any of them.

    Args:
        container: Open for reading.
        window: First and last second that are wanted; None for all.
    """

    def __init__(self, container: av.container.InputContainer, window: tuple[float, float] | None = None):
        moving = [one for one in container.streams.video if Disposition.attached_pic not in one.disposition]
        if not moving:
            raise BrokenPicture("there is no video in it")
        self.container, self.stream = container, moving[0]
        self.context = self.stream.codec_context
        if self.context is None:
            raise BrokenPicture("its codec is unknown")
        self._refuse_giant(self.context.width, self.context.height)
        self.context.thread_count = 1  # workers are the parallelism
        self.reformatter = VideoReformatter()
        self.packets = _packets(container, self.stream, window)
        shown = [packet.pts for packet in self.packets if not packet.is_discard]
        self.ordered = None in shown or len(set(shown)) < len(shown)  # no usable times: frames count in their order
        self._number: dict[int, int] = {}  # presentation time -> number, in order of presentation
        self.times, self.end = self._by_order() if self.ordered else self._by_time(shown)
        keys = [at for at, packet in enumerate(self.packets) if packet.is_keyframe and not self.ordered]
        self._keys = [(self._number.get(self.packets[at].pts, 0), at) for at in keys]  # number of a frame, and packet

    def _by_time(self, shown: list[int]) -> tuple[np.ndarray, float]:
        """Times of all frames, and when the last one ceases."""
        shown = sorted(shown)
        self._number = {pts: number for number, pts in enumerate(shown)}
        times = np.array(shown, dtype=np.float64) * float(self.stream.time_base)
        return times, times[-1] + (float(np.median(np.diff(times))) if len(times) > 1 else 1 / self.rate)

    def _by_order(self) -> tuple[np.ndarray, float]:
        """Times by the frame rate, of a file that has none; its frames have to be counted."""
        if not self.stream.average_rate:
            raise BrokenPicture("neither its frames have times nor has it a frame rate")
        count = sum(1 for _ in self._decoded(self.packets))
        self.context.flush_buffers()
        times = np.arange(count) / self.rate
        return times, count / self.rate

    @property
    def rate(self) -> float:
        """Frames per second on average; 1 where that is unknown."""
        return float(self.stream.average_rate or 1)

    def frames(self, numbers: Iterable[int], at_most: int) -> dict[int, np.ndarray]:
        """Some frames (H, W, 3) by number; decodes from the key frames before them.

        Args:
            numbers: Which.
            at_most: How many copies of a frame there will be in all, for the limit of memory.
        """
        found: dict[int, np.ndarray] = {}
        for key, group in groupby(sorted(set(numbers)), self._key_before):
            wanted = set(group)
            for number, frame in self._numbered(key):
                if number not in wanted:
                    continue
                found[number] = self._pixels(frame, at_most)
                wanted.discard(number)
                if not wanted:
                    break
            self.context.flush_buffers()
            if wanted:
                raise BrokenPicture(f"frame {min(wanted)} of {len(self.times)} cannot be decoded")
        return found

    def walk(self, begin: float = 0.0, end: float = float("inf")) -> Iterator[tuple[float, np.ndarray]]:
        """The frames (H, W, 3) from one second to another, in order, with their seconds.

        Args:
            begin: Counted from the beginning of the video.
            end: The frame that appears then is left out.
        """
        start = float((self.stream.start_time or 0) * self.stream.time_base) if not self.ordered else 0.0
        for number, frame in self._numbered(0):
            if number is None:
                continue
            seconds = self.times[number] - start
            if begin - ROUNDING <= seconds < end - ROUNDING:
                yield seconds, self._pixels(frame, 1)

    def _key_before(self, number: int) -> int:
        """Which packet to begin at, to decode a frame: the latest key frame that is not shown after it."""
        return max((at for first, at in self._keys if first <= number), default=0)

    def _numbered(self, first: int) -> Iterator[tuple[int | None, av.VideoFrame]]:
        """Frames from a packet on, with their numbers; None for one that is not to be shown."""
        for order, frame in enumerate(self._decoded(self.packets[first:])):
            yield (order if self.ordered else self._number.get(frame.pts)), frame

    def _decoded(self, packets: list[av.Packet]) -> Iterator[av.VideoFrame]:
        for packet in packets:
            yield from self.context.decode(packet)
        yield from self.context.decode(None)

    def _pixels(self, frame: av.VideoFrame, copies: int) -> np.ndarray:
        """(H, W, 3) uint8, upright."""
        if frame.is_corrupt:
            raise BrokenPicture("a frame is damaged")
        self._refuse_giant(frame.width, frame.height, copies)
        pixels = self.reformatter.reformat(frame, format="rgb24").to_ndarray()
        return np.rot90(pixels, round(frame.rotation / 90) % 4) if frame.rotation else pixels

    def _refuse_giant(self, width: int, height: int, copies: int = 1) -> None:
        if width * height > MAX_PIXELS:
            raise BrokenPicture(f"{width} x {height} pixels are more than {MAX_PIXELS // 1_000_000} megapixels")
        if 3 * width * height * copies > MAX_BYTES:
            raise BrokenPicture(f"{copies} frames of {width} x {height} pixels are more than a clip may hold")


def _packets(
    container: av.container.InputContainer, stream: av.VideoStream, window: tuple[float, float] | None
) -> list[av.Packet]:
    """The packets of a stream in decoding order; of a window, from a key frame before it to a little behind it."""
    start, unit, kept = stream.start_time or 0, float(stream.time_base or 1), []
    if window is not None and window[0] > 0:
        container.seek(start + int(window[0] / unit), backward=True, stream=stream)
    for packet in container.demux(stream):
        if not packet.size:
            continue
        kept.append(packet)
        if len(kept) > MAX_FRAMES:
            raise BrokenPicture(f"more than {MAX_FRAMES:,} frames: split it")
        if window is not None and packet.dts is not None and (packet.dts - start) * unit > window[1] + REORDER:
            break
    if not kept:
        raise BrokenPicture("it holds no frames")
    return kept

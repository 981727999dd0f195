"""Frames to video bytes through PyAV: H.264 in MP4, the same bytes for the same frames and library versions."""

from collections.abc import Iterable
from fractions import Fraction
from io import BytesIO

import av
import numpy as np

from jepa_pretrain.contracts import UserError

CLOCK = Fraction(1, 90_000)  # of presentation times, seconds
COPY = {"preset": "veryfast", "g": "24", "bf": "0", "threads": "1"}  # a key frame a second or so: clips begin anywhere
LOSSLESS = {"preset": "ultrafast", "qp": "0", "tune": "zerolatency", "threads": "1"}  # no frame depends on a later one


def encode(frames: Iterable[tuple[float, np.ndarray]], rate: float, crf: int) -> bytes:
    """Encodes frames with the loss that `crf` allows.

    Args:
        frames: Seconds, ascending, and pixels (H, W, 3) uint8 of one size.
        rate: Frames per second, about; the times decide.
        crf: x264's constant rate factor; 18 looks like the original, 51 is worst.
    """
    return _encode(frames, rate, "libx264", COPY | {"crf": str(crf)})


def encode_exactly(frames: np.ndarray, rate: float) -> bytes:
    """Encodes frames without loss; equal beginnings of two videos decode to equal frames.

    Args:
        frames: (T, H, W, 3) uint8.
        rate: Frames per second.
    """
    return _encode(((number / rate, one) for number, one in enumerate(frames)), rate, "libx264rgb", LOSSLESS)


def _encode(frames: Iterable[tuple[float, np.ndarray]], rate: float, codec: str, options: dict[str, str]) -> bytes:
    if codec not in av.codecs_available:
        raise UserError(f"this PyAV has no {codec} encoder: install the PyAV of the package index")
    out, stream, begin = BytesIO(), None, 0.0
    with av.open(out, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        for seconds, pixels in frames:
            if stream is None:
                stream, begin = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001)), seconds
                stream.options = options
                stream.height, stream.width = pixels.shape[:2]
                even = stream.height % 2 == stream.width % 2 == 0
                stream.pix_fmt = "rgb24" if codec == "libx264rgb" else "yuv420p" if even else "yuv444p"
                stream.codec_context.time_base = CLOCK
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = round((seconds - begin) / CLOCK), CLOCK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()

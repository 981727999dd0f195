"""Small videos made with PyAV alone, so that the package's own encoder is not its own judge."""

import io
from fractions import Fraction

import av
import numpy as np

VALUES = range(20, 250, 5)  # brightness of frame i is VALUES[i]: far enough apart to survive coding


def frames(count: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Frames whose upper left corner is dark and whose brightness tells their number."""
    made = []
    for number in range(count):
        frame = np.full((height, width, 3), VALUES[number], dtype=np.uint8)
        frame[: height // 3, : width // 3] = 0
        made.append(frame)
    return made


def video(
    pictures: list[np.ndarray],
    kind: str = "mp4",
    codec: str = "libx264",
    pixels: str = "yuv444p",
    times: list[int] | None = None,  # in hundredths of a second; 25 frames per second without
    options: dict[str, str] | None = None,
    turned: int = 0,
) -> bytes:
    """An encoded video."""
    out = io.BytesIO()
    with av.open(out, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        if turned:
            stream.set_display_rotation(turned)
        if times:
            stream.codec_context.time_base = Fraction(1, 100)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = times[number] if times else number
            if times:
                frame.time_base = Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def sound() -> bytes:
    """An MP4 with nothing but sound."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for _ in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def whole(data: bytes) -> list[np.ndarray]:
    """All frames (H, W, 3), decoded one after the other from the beginning: the reference."""
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

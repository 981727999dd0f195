"""Long videos in files, cut into clips as they are packed."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.clips import is_video, videos
from jepa_pretrain.data.images import BrokenPicture
from jepa_pretrain.data.shrink import crf_of, smaller
from jepa_pretrain.data.sources import Files


class Cuts:
    """Pieces of equal length of videos in files, each encoded anew; whatever is shorter is copied whole.

    How many pieces there are is decided from the headers, before anything is decoded. A rest of less than half a piece
    stays with the piece before it.

    Args:
        files: The videos; pictures among them stay as they are.
        seconds: Length of a piece.
        short_side: Pixels that larger ones are shrunk to; None keeps their size.
        quality: 1 to 100.
    """

    def __init__(self, files: Files, seconds: float, short_side: int | None, quality: int):
        if seconds <= 0:
            raise UserError(f"clip_seconds must be more than 0, not {seconds:g}")
        self.files, self.seconds, self.short_side, self.quality = files, seconds, short_side, quality
        pieces = [_pieces(path, seconds) for path in files.paths]
        self.places = [(file, piece, count) for file, count in enumerate(pieces) for piece in range(count)]
        self.classes = files.classes
        self.sizes = np.array([files.sizes[file] // count for file, _, count in self.places], dtype=np.int64)
        self.digest = sha256(f"{files.digest} {pieces} {seconds} {short_side} {quality}".encode()).hexdigest()

    def name(self, number: int) -> str:
        file, piece, count = self.places[number]
        return self.files.name(file) + (f" [{piece + 1}/{count}]" if count > 1 else "")

    def read(self, number: int) -> tuple[str, dict[str, bytes]]:
        file, piece, count = self.places[number]
        if count == 1:
            return self.files.read(file)
        from jepa_pretrain.data.encode import encode

        path, label = self.files.paths[file], self.files.labels[file]
        begin = piece * self.seconds
        end = begin + self.seconds if piece + 1 < count else float("inf")
        with open(path, "rb") as stream, videos().opened(stream, (begin, end)) as video:
            frames = self._inside(smaller(video.walk(begin, end), self.short_side), begin)
            data = encode(frames, video.rate, crf_of(self.quality))
        fields = {"mp4": data}
        return f"{path.stem}-{piece:04d}", fields if label < 0 else fields | {"cls": str(label).encode()}

    def _inside(self, frames: Iterator[tuple[float, np.ndarray]], begin: float) -> Iterator[tuple[float, np.ndarray]]:
        """The frames of a piece, of which there must be one."""
        empty = True
        for one in frames:
            empty = False
            yield one
        if empty:
            raise BrokenPicture(f"there are no frames from second {begin:g} on")


def _pieces(path: Path, seconds: float) -> int:
    """How many pieces a file gives; one where it is broken, which reading it will tell."""
    if not is_video(path.suffix[1:].lower()):
        return 1
    try:
        with open(path, "rb") as stream:
            return max(int(videos().duration(stream) / seconds + 0.5), 1)
    except (BrokenPicture, OSError):
        return 1

"""How shards are read for a frozen encoder: arguments that all evaluations share, and which frames follow from them."""

from dataclasses import dataclass

import torch
from rich.console import Console
from torch import nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.index import Index
from jepa_pretrain.data.samples import holds_videos
from jepa_pretrain.data.spans import Span
from jepa_pretrain.data.stream import Loader, batches
from jepa_pretrain.data.views import CentreCrop


@dataclass(frozen=True)
class Reader:
    """How shards are read, and where the encoder runs.

    Args:
        batch_size: Samples per forward pass of the encoder, and per step of a probe.
        workers: Processes that read and decode.
        device: `auto`, `cpu` or `cuda`.
        cache: Folder for features and for copies of remote or compressed shards; the user's cache folder without it.
        image_size: Input size, pixels; its own by default, 224 for timm models by name.
        frames: Frames of a clip that `pixels` takes; an exported folder knows its own, timm models take one.
        clips: Clips of a video, evenly spread, over which features are averaged; one lies in the middle.
        stride: Every how-manieth frame of a video a clip takes.
        fps: Frames per second of a clip instead of a stride, whatever the video's rate.
    """

    batch_size: int = 256
    workers: int = 2
    device: str = "auto"
    cache: str | None = None
    image_size: int | None = None
    frames: int = 1
    clips: int = 1
    stride: int = 1
    fps: float | None = None

    def __post_init__(self) -> None:
        if min(self.batch_size, self.clips) < 1 or self.workers < 0:
            raise UserError("batch_size and clips must be at least 1, workers at least 0")
        Span(self.frames, self.stride, self.fps)  # it refuses what cannot be
        _ = self.place

    @property
    def place(self) -> torch.device:
        """The device that the user named."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            return torch.empty(0, device=self.device).device
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"no device {self.device!r} here: {str(error).splitlines()[0]}") from error

    def span(self, encoder: nn.Module) -> Span:
        """What a clip for this encoder covers of a video."""
        return Span(encoder.frames, self.stride, self.fps)

    def stream(self, encoder: nn.Module, source: str) -> Loader:
        """Batches for an encoder, one view per clip, on the CPU."""
        view = CentreCrop(encoder.image_size)
        return batches(source, view, self.batch_size, self.workers, self.cache, self.span(encoder), self.clips)


DEFAULT = Reader()


def tell(encoder: nn.Module, index: Index, reader: Reader, console: Console) -> None:
    """Say in a line what an encoder sees of videos, or that it sees pictures where it takes clips.

    Args:
        encoder: A `FrozenEncoder` or `Pixels`.
        index: The shards; their first sample tells what they hold.
        reader: How they are read.
        console: Where to.
    """
    frames = encoder.frames
    if holds_videos(index):
        rate = f"one frame in {reader.stride}" if reader.stride > 1 else "successive frames"
        rate = f"{reader.fps:g} frames per second" if reader.fps else rate
        shown = (
            "single frames, for it is an encoder of pictures" if frames == 1 else f"clips of {frames} frames, {rate}"
        )
        line = f"videos: {encoder.name} sees {shown}; {reader.clips} from each"
    elif frames > 1:
        line = f"pictures: {encoder.name} takes clips of {frames} frames, so each picture is held for as long"
    else:
        return
    console.print(line, highlight=False, soft_wrap=True)

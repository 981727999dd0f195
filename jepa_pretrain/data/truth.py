"""What is known of the rendered videos, read again by the keys of the samples: for evaluations."""

from collections.abc import Iterator

import torch
from torch import Tensor

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.archive import Shard
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.paint import flow
from jepa_pretrain.data.spans import Span
from jepa_pretrain.data.tensors import TRUTH, read_tensors

IN_TIME = ("position", "velocity", "visible")  # one row per frame


def truth(
    source: str | list[str],
    keys: list[str] | None = None,
    span: Span | None = None,
    place: float = 0.5,
    cache: str | None = None,
) -> dict[str, Tensor]:
    """The truth of samples, stacked in the order of their keys.

    Args:
        source: Shards of `shards demo-video`: a path, URL, brace or glob pattern, a folder, or a list of these.
        keys: `Batch.key` of the samples; None for all, in the order of the shards.
        span: The clip that was read, whose frames are picked; None for all frames.
        place: Where in the video the clip lies; evaluations read the middle, 0.5.
        cache: Folder for copies of compressed and remote shards.

    Returns:
        Over samples S, frames T and objects O: `position` (S, T, O, 2) x, y in parts of the side, y down; `velocity`
        (S, T, O, 2) the same per frame of the video; `visible` (S, T, O) share of the object that is not hidden;
        `shape` (S, O) number in `SHAPES`; `radius` (S, O) in parts of the side; `angle` (S, O) radians; `colour`
        (S, O, 3) in 0..1. Later objects lie in front of earlier ones; the first is the large one.

    Raises:
        UserError: A key is not there, or its sample has no truth.
    """
    wanted = None if keys is None else set(keys)
    found = {key: known for key, known in _read(source, wanted, cache) if known}
    rows = [found.get(key) for key in (keys or found)]
    if not rows or None in rows:
        missing = next((key for key in keys or [] if key not in found), "any sample")
        raise UserError(f"{source!r} holds no truth of {missing}: only shards of `shards demo-video` have it")
    return {name: torch.stack([_picked(row, name, span, place) for row in rows]) for name in rows[0]}


def true_flow(known: dict[str, Tensor], size: int) -> Tensor:
    """Optical flow rebuilt from the truth: (S, T - 1, 2, H, W), pixels right and down to the next frame.

    Args:
        known: What `truth` gives.
        size: Height and width of the frames, pixels.
    """
    names = ("position", "shape", "radius", "angle")
    return torch.from_numpy(flow(*(known[name].numpy() for name in names), size))


def _read(
    source: str | list[str], wanted: set[str] | None, cache: str | None
) -> Iterator[tuple[str, dict[str, Tensor] | None]]:
    """Keys, and what is known of each; of the wanted ones only."""
    for entry in open_index(source, cache).shards:
        tar: Shard = entry.open(cache)
        for number, name in enumerate(tar.keys):
            key = f"{tar.name}/{name}"
            if wanted is None or key in wanted:
                data = tar.read(number, TRUTH)
                yield key, None if data is None else read_tensors(data)


def _picked(known: dict[str, Tensor], name: str, span: Span | None, place: float) -> Tensor:
    """One tensor of a sample, at the frames of a clip."""
    if span is None or name not in IN_TIME:
        return known[name]
    if span.fps is not None:
        raise UserError("the rendered worlds count in frames: read them with a span by stride, not by fps")
    frames = len(known["position"])
    numbers = span.choose(torch.arange(frames).numpy(), frames, place)
    return known[name][numbers]

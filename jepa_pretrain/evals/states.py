"""Frozen states at one moment of rendered videos, beside what is true at that moment."""

from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.spans import even
from jepa_pretrain.data.truth import truth
from jepa_pretrain.evals.features import check_finite, followed
from jepa_pretrain.evals.reader import Reader
from jepa_pretrain.models.hierarchy import Hierarchy
from jepa_pretrain.ops import pool

MOVES = ("position", "velocity")  # what changes from frame to frame
STAYS = ("colour", "shape")


class Layer(NamedTuple):
    """States that an encoder gives at some moments."""

    name: str
    encoder: nn.Module
    frames: list[int]  # the last frame of a clip that each moment reads


class States(NamedTuple):
    """States and truth of some clips, row by row; a video's clips are side by side in no order that matters."""

    layers: dict[str, Tensor]  # (n, D) by name
    truth: dict[str, Tensor]  # (n, K) of one object; `shape` is (n,) int64
    video: Tensor  # (n,) number of the video


def layers_of(encoder: nn.Module) -> list[Layer]:
    """Every level of a hierarchy, its encoder first; of other encoders the last layer alone.

    Args:
        encoder: A `FrozenEncoder` or `Pixels`.
    """
    inner = encoder.encoder if encoder.name != "pixels" else encoder
    if not isinstance(inner, Hierarchy):
        tubelet = encoder.frames // encoder.grid.t
        return [Layer("last layer", encoder, list(range(tubelet - 1, encoder.frames, tubelet)))]
    frames = list(range(inner.tubelet - 1, inner.frames, inner.tubelet))
    found = [Layer("encoder", inner.at(0), frames)]
    for number, level in enumerate(inner.levels, start=1):
        frames = frames[:: level.stride]
        found.append(Layer(f"level {number}", inner.at(number), frames))
    return found


def moment_of(layers: list[Layer]) -> int:
    """The frame at which all layers are compared: the last one that each of them has a moment for."""
    return max(set.intersection(*(set(layer.frames) for layer in layers)))


@torch.no_grad()
def read(encoder: nn.Module, source: str, what: int, reader: Reader, console: Console) -> States:
    """States of all clips of some shards, and the truth about one object.

    Args:
        encoder: A `FrozenEncoder` or `Pixels`, on the reader's device.
        source: Shards of `shards demo-video`.
        what: Number of the object; 0 is the large one.
        reader: How shards are read.
        console: Where the progress bar is.

    Raises:
        UserError: The shards hold no truth, or have no such object.
    """
    layers = layers_of(encoder)
    frame = moment_of(layers)
    rows: dict[str, list[list[Tensor]]] = {}  # by name, clip of the video, batch
    keys: list[str] = []
    for batch in followed(reader.stream(encoder, source), open_index(source, reader.cache).samples, source, console):
        keys += batch.key
        for number, clip in enumerate(batch.views):
            for name, state in _at(layers, frame, clip.to(reader.place)).items():
                rows.setdefault(name, [[] for _ in batch.views])[number].append(state.cpu())
    features = {name: torch.cat([torch.cat(parts) for parts in of_clips]) for name, of_clips in rows.items()}
    for found in features.values():
        check_finite(found, source)
    span, known = reader.span(encoder), []
    for place in even(reader.clips):
        known.append(_of_object(truth(source, keys, span, place, reader.cache), what, frame))
    joined = {name: torch.cat([one[name] for one in known]) for name in known[0]}
    return States(features, joined, torch.arange(len(keys)).repeat(reader.clips))


def _at(layers: list[Layer], frame: int, clip: Tensor) -> dict[str, Tensor]:
    """States (B, D) at one moment: all tokens side by side, and where there are several, their average too."""
    found = {}
    for layer in layers:
        tokens = layer.encoder(clip).unflatten(1, (len(layer.frames), -1))[:, layer.frames.index(frame)]  # (B, N, D)
        found[layer.name] = tokens.flatten(1).float()
        if tokens.shape[1] > 1:
            found[f"{layer.name}, averaged"] = pool(tokens).float()
    return found


def _of_object(known: dict[str, Tensor], what: int, frame: int) -> dict[str, Tensor]:
    objects = known["shape"].shape[1]
    if not 0 <= what < objects:
        raise UserError(f"these videos show objects 0 to {objects - 1}: there is no object {what}")
    moved = {name: known[name][:, frame, what] for name in MOVES}
    return moved | {name: known[name][:, what] for name in STAYS}

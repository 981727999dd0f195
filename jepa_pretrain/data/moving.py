"""The embedded default videos: moving shapes whose physics and truth are known, packed as shards.

Each sample holds a lossless `mp4`, its class `cls`, and `truth.safetensors` with position, velocity, visibility and
identity (`jepa_pretrain.data.truth` reads it); where something acts, also `actions.safetensors`, which becomes
`Batch.actions`. Safetensors rather than JSON: typed, exact, and read without parsing numbers.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data import worlds
from jepa_pretrain.data.encode import encode_exactly
from jepa_pretrain.data.paint import paint
from jepa_pretrain.data.shapes import SHAPES
from jepa_pretrain.data.tensors import ACTIONS, TRUTH, write_tensors
from jepa_pretrain.data.worlds import Scenes
from jepa_pretrain.data.writer import Fields, Plan, write_index, write_made
from jepa_pretrain.seeds import seed_of

RATE = 10  # frames per second, by name only: the worlds' time is in frames
CHUNK = 64  # clips made at a time; even, since the fork's pasts come in pairs
SHARD = 1024  # samples
WORLDS = {
    "bounce": (worlds.bounce, list(SHAPES)),
    "fork": (worlds.fork, ["left", "right"]),
    "pushed": (worlds.pushed, list(SHAPES)),
}


def moving(
    out: str,
    world: Literal["bounce", "fork", "pushed"] = "bounce",
    train: int = 2048,
    val: int = 512,
    size: int = 32,
    frames: int = 16,
    seed: int = 0,
    alike: bool = False,
) -> None:
    """Render demo videos: shapes that move, bounce and hide each other, with their truth.

    Args:
        out: Folder for the shards and their index.
        world: bounce - a large shape behind two small ones, its kind is the class; fork - a ball that goes left or
            right at random half-way, every past occurs with both futures; pushed - as bounce, with random actions on
            the large shape.
        train: Training clips.
        val: Validation clips.
        size: Height and width, pixels.
        frames: Of each clip.
        seed: Other seeds give other clips.
        alike: Objects have the same colours in all clips, brighter than any ground, instead of drawn ones.
    """
    if train < 1 or val < 1 or size < 16 or size % 2 or frames < 2:
        raise UserError(f"impossible demo: {train} training and {val} validation clips, {frames} x {size} pixels")
    folder, (draw, classes) = Path(out), WORLDS[world]
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        own = seed_of(seed, number)
        shards = -(-count // SHARD)
        kind = f"{world}-alike" if alike else world
        plan = Plan(split=split, plan=f"{kind}-{count}-{frames}-{size}-{own}", shards=shards, classes=classes)
        make = partial(_samples, draw=partial(draw, frames=frames, size=size), seed=own, alike=alike)
        write_made(folder, plan, count, SHARD, make)
    write_index(folder)
    line = f"{train} + {val} clips of the world {world}, {frames} frames of {size} x {size} pixels, in {out}"
    Console(highlight=False).print(line, soft_wrap=True)


def _samples(first: int, last: int, draw: partial[Scenes], seed: int, alike: bool) -> Iterator[tuple[int, Fields]]:
    """Number and members of each clip."""
    for start in range(first, last, CHUNK):
        scenes = draw(min(CHUNK, last - start), rng=np.random.default_rng([seed, start]))
        scenes = worlds.alike(scenes) if alike else scenes
        clips, seen = paint(scenes)
        for row, clip in enumerate(clips):
            fields = {"mp4": encode_exactly(clip, RATE), "cls": str(scenes.label[row]).encode()}
            fields[TRUTH] = write_tensors(**truth_of(scenes, seen, row))
            if scenes.actions is not None:
                fields[ACTIONS] = write_tensors(actions=torch.from_numpy(scenes.actions[row]).float())
            yield start + row, fields


def truth_of(scenes: Scenes, seen: np.ndarray, row: int) -> dict[str, torch.Tensor]:
    """All that is known of one scene, as it is stored.

    Args:
        scenes: The scenes.
        seen: (S, T, O) visible share, as `paint` tells it.
        row: Which of them.
    """
    known = {name: scenes._asdict()[name][row] for name in ("position", "velocity", "radius", "angle", "colour")}
    tensors = {name: torch.from_numpy(np.asarray(value)).float() for name, value in known.items()}
    return tensors | {"visible": torch.from_numpy(seen[row]).float(), "shape": torch.from_numpy(scenes.shape[row])}

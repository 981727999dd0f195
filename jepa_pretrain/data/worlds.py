"""Three small worlds, drawn at random: `bounce`, `fork` and `pushed`. Each gives scenes, whose truth is known exactly.

The first object is the large one; later objects lie in front of earlier ones.
"""

from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array

from jepa_pretrain.data import physics
from jepa_pretrain.data.shapes import SHAPES
from jepa_pretrain.data.textures import CONTRAST, colour_pairs, waves

LARGE, SMALL = (0.20, 0.28), (0.08, 0.11)  # radii, of the picture's side
FEW = 2  # small objects
SLOW, FAST = (0.01, 0.04), (0.03, 0.07)  # speeds of the large and of the small, per frame
TURN = 0.4  # radians that a shape is turned, to either side
TEXTURE, GRAIN = 0.03, 0.02  # deviation of the background's waves and noise; values are in 0..1
FORCE, DAMPING, HOLD = 0.02, 0.85, 4  # of the pushed: speed by an action of 1, what stays of it, frames it lasts
BALL, TRACK = 0.08, 0.05  # of the fork: radius, and half the track's width
WAYS = (-1, 1)  # left and right
PALETTE = np.array([(1.0, 1.0, 1.0), (1.0, 0.55, 0.0), (0.0, 0.8, 1.0)])  # of the objects where all scenes share them
DIM = 0.5  # what the ground is multiplied by there, so that every object is brighter than any ground


class Scenes(NamedTuple):
    """Scenes to be painted, and all that is true of them. S scenes, T frames, O objects."""

    position: Array  # (S, T, O, 2) x, y in parts of the side, y down
    velocity: Array  # (S, T, O, 2) in parts of the side per frame
    shape: Array  # (S, O) number in SHAPES
    radius: Array  # (S, O) in parts of the side
    angle: Array  # (S, O) radians
    colour: Array  # (S, O, 3) in 0..1
    background: Array  # (S, H, W, 3) in 0..1
    label: Array  # (S,)
    actions: Array | None = None  # (S, T, 2), each component in -1..1


def bounce(count: int, frames: int, size: int, rng: np.random.Generator) -> Scenes:
    """A large shape drifts behind two small ones; all bounce off the walls, the small ones off each other.

    The label is the large one's shape.

    Args:
        count: Scenes (S).
        frames: Of each (T).
        size: Height and width, pixels.
        rng: Draws everything.
    """
    return _room(count, frames, size, rng, None)


def pushed(count: int, frames: int, size: int, rng: np.random.Generator) -> Scenes:
    """As `bounce`, but the large shape is driven by random actions, each of which lasts a few frames.

    Its velocity is DAMPING times the one before plus FORCE times the action; the label is its shape.

    Args:
        count: Scenes (S).
        frames: Of each (T).
        size: Height and width, pixels.
        rng: Draws everything.
    """
    drawn = rng.uniform(-1, 1, (count, -(-frames // HOLD), 2))
    return _room(count, frames, size, rng, np.repeat(drawn, HOLD, axis=1)[:, :frames])


def fork(count: int, frames: int, size: int, rng: np.random.Generator, ways: tuple[int, ...] = WAYS) -> Scenes:
    """A ball rolls down a track and, half-way through the clip, takes one of its branches.

    Neighbouring scenes share their past: the first frames // 2 + 1 frames are the same for each of the ways. The label
    is the number of the way.

    Args:
        count: Scenes (S).
        frames: Of each (T).
        size: Height and width, pixels.
        rng: Draws everything.
        ways: -1 is left, 1 right; 0 rolls straight on, off the track, which never happens in the shards.
    """
    pasts = -(-count // len(ways))
    top = np.stack([rng.uniform(0.42, 0.58, pasts), rng.uniform(0.08, 0.14, pasts)], -1)
    bend = np.stack([rng.uniform(0.46, 0.54, pasts), rng.uniform(0.38, 0.46, pasts)], -1)
    spread = np.stack([rng.uniform(0.30, 0.36, pasts), rng.uniform(0.34, 0.40, pasts)], -1)
    ball, track = colour_pairs(pasts, rng)
    ground = _ground(pasts, size, rng, rng.uniform(0.1, 0.9, (pasts, 3)))
    ends = [bend + spread * [way, 1] for way in WAYS]
    _draw_tracks(ground, [(top, bend), *((bend, end) for end in ends)], track)
    past = np.arange(count) // len(ways)  # (S,) which one a scene goes on from
    way = np.tile(np.arange(len(ways)), pasts)[:count]
    corner = bend[past] + spread[past] * np.stack([np.asarray(ways)[way], np.ones(count)], -1)
    length, half = np.linalg.norm(bend[past] - top[past], axis=-1), max(frames // 2, 1)
    motion = physics.roll(
        np.stack([top[past], bend[past], corner], 1), 0.6 * length / half, 0.8 * length / half**2, frames
    )
    disc = np.full((count, 1), list(SHAPES).index("disc"))
    radius = np.full((count, 1), BALL)
    return Scenes(*motion, disc, radius, 0 * radius, ball[past][:, None], ground[past], way)


def alike(scenes: Scenes) -> Scenes:
    """The same scenes with the same object colours in all of them, on grounds that still differ but are darker.

    Where colours are drawn for each scene, an object may be brighter or darker than its ground, and what linearly tells
    its place in one scene tells the opposite in another.

    Args:
        scenes: Of any world.
    """
    colour = np.broadcast_to(PALETTE[: scenes.colour.shape[1]], scenes.colour.shape).copy()
    return scenes._replace(colour=colour, background=scenes.background * np.float32(DIM))


def _room(count: int, frames: int, size: int, rng: np.random.Generator, actions: Array | None) -> Scenes:
    """A large object and a few small ones in a room."""
    radius = np.concatenate([rng.uniform(*LARGE, (count, 1)), rng.uniform(*SMALL, (count, FEW))], 1)
    speed = np.concatenate([rng.uniform(*SLOW, (count, 1)), rng.uniform(*FAST, (count, FEW))], 1)
    course = rng.uniform(0, 2 * np.pi, radius.shape)
    velocity = speed[..., None] * np.stack([np.cos(course), np.sin(course)], -1)
    position = radius[..., None] + rng.uniform(0, 1, (*radius.shape, 2)) * (1 - 2 * radius[..., None])
    push = None if actions is None else FORCE * actions
    motion = physics.bounce(position, velocity, radius, np.array([0] + [1] * FEW), frames, push, DAMPING)
    shape = rng.integers(0, len(SHAPES), radius.shape)
    angle = rng.uniform(-TURN, TURN, radius.shape)
    colour, base = _colours(count, 1 + FEW, rng)
    return Scenes(*motion, shape, radius, angle, colour, _ground(count, size, rng, base), shape[:, 0], actions)


def _colours(count: int, objects: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Colours (S, O, 3) that are well apart from a background (S, 3)."""
    base = rng.uniform(0.1, 0.9, (count, 3))
    drawn = rng.uniform(0.0, 1.0, (32, count, objects, 3))
    apart = np.linalg.norm(drawn - base[:, None], axis=-1) > CONTRAST * 3**0.5  # (32, S, O)
    first = apart.argmax(0)
    return drawn[first, np.arange(count)[:, None], np.arange(objects)], base


def _ground(count: int, size: int, rng: np.random.Generator, base: Array) -> Array:
    """Textured backgrounds (S, H, W, 3) of given mean colours (S, 3); they stand still."""
    row = ((np.arange(size) + 0.5) / size).astype(np.float32)
    grain = rng.standard_normal((count, size, size, 3), dtype=np.float32)
    return base[:, None, None].astype(np.float32) + TEXTURE * waves(count, row, rng) + GRAIN * grain


def _draw_tracks(ground: Array, segments: list[tuple[Array, Array]], colour: Array) -> None:
    """Paints straight tracks from (S, 2) to (S, 2) on backgrounds (S, H, W, 3); in place."""
    size = ground.shape[1]
    row = (np.arange(size) + 0.5) / size
    place = np.stack(np.broadcast_arrays(row[None, :], row[:, None]), -1)  # (H, W, 2) x, y
    for start, end in segments:
        way, offset = (end - start)[:, None, None], place - start[:, None, None]
        along = ((offset * way).sum(-1) / (way * way).sum(-1)).clip(0, 1)[..., None]  # nearest point of the segment
        distance = np.linalg.norm(offset - along * way, axis=-1)
        cover = (0.5 + (TRACK - distance) * size).clip(0, 1)[..., None]
        ground += cover * (colour[:, None, None] - ground)

"""The embedded default data: rendered pictures whose factors are known, packed as shards.

The class is the shape; position, size, angle, colours and background vary and are stored beside each picture. A linear
probe on raw pixels stays near chance, since shape and background swap colours at random; k-NN on raw pixels does not,
since among thousands of flat pictures some look alike. The knobs below decide how hard the pictures are: minutes on two
cores must be enough for an encoder to learn from them.
"""

import json
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.shapes import SHAPES
from jepa_pretrain.data.textures import colour_pairs, coverage, waves
from jepa_pretrain.data.writer import Plan, write_index, write_made
from jepa_pretrain.seeds import seed_of

RADIUS = (0.28, 0.42)  # of the picture's side
ANGLE = 0.4  # radians to either side
MARGIN = 0.75  # how much of its radius a shape keeps away from the border
TEXTURE = 0.03  # deviation of the background's waves; values are in 0..1
SHADE = 0.02  # deviation of the shape's own waves
GRAIN = 0.02  # deviation of the noise on every pixel
QUALITY = 95  # JPEG, which decodes several times faster than PNG
CHUNK = 512  # pictures rendered at a time
SHARD = 2048  # samples
FACTORS = ("x", "y", "radius", "angle")


def demo(out: str, train: int = 4096, val: int = 1024, size: int = 32, seed: int = 0) -> None:
    """Render the demo pictures: ten shapes of any place, size and colour on textured backgrounds.

    Args:
        out: Folder for the shards and their index.
        train: Training pictures.
        val: Validation pictures.
        size: Height and width, pixels.
        seed: Other seeds give other pictures.
    """
    if train < 1 or val < 1 or size < 8:
        raise UserError(f"impossible demo: {train} training and {val} validation pictures of {size} pixels")
    folder = Path(out)
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        own = seed_of(seed, number)
        shards = -(-count // SHARD)
        plan = Plan(split=split, plan=f"demo-{count}-{size}-{own}", shards=shards, classes=list(SHAPES))
        write_made(folder, plan, count, SHARD, partial(_samples, size=size, seed=own))
    write_index(folder)
    line = f"{train} + {val} pictures of {len(SHAPES)} shapes, {size} x {size} pixels, in {out}"
    Console(highlight=False).print(line, soft_wrap=True)


def _samples(first: int, last: int, size: int, seed: int) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Number and members of each picture."""
    for start in range(first, last, CHUNK):
        count = min(CHUNK, last - start)
        pictures, factors = render(count, size, np.random.default_rng([seed, start]))
        for row in range(count):
            known = {name: _plain(values[row]) for name, values in factors.items()}
            label = str(known["label"]).encode()
            yield start + row, {"jpg": _jpeg(pictures[row]), "cls": label, "json": json.dumps(known).encode()}


def _plain(value: np.ndarray) -> object:
    return np.round(value, 4).tolist()


def _jpeg(pixels: np.ndarray) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY, subsampling=0)
    return out.getvalue()


def render(count: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Renders pictures with random factors.

    Args:
        count: How many (S).
        size: Height and width, pixels.
        rng: Draws the factors and the textures.

    Returns:
        Pictures (S, H, W, 3) uint8, and the factors, each (S, ...): label, x, y and radius in parts of the side,
        angle in radians, and the mean colours of shape and background in 0..1.
    """
    factors = _draw_factors(count, rng)
    row = ((np.arange(size) + 0.5) / size).astype(np.float32)
    cover = coverage(factors["label"], *(factors[name] for name in FACTORS), row)[..., None]  # (S, H, W, 1), 1 inside
    background = factors["background"][:, None, None] + TEXTURE * waves(count, row, rng)
    shape = factors["colour"][:, None, None] + SHADE * waves(count, row, rng)
    pixels = background + cover * (shape - background)
    pixels += GRAIN * rng.standard_normal(pixels.shape, dtype=np.float32)
    return (pixels * 255).round().clip(0, 255).astype(np.uint8), factors


def _draw_factors(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    radius = rng.uniform(*RADIUS, count)
    room = 0.5 - MARGIN * radius
    colour, background = colour_pairs(count, rng)
    return {
        "label": rng.integers(0, len(SHAPES), count),
        "x": 0.5 + rng.uniform(-1, 1, count) * room,
        "y": 0.5 + rng.uniform(-1, 1, count) * room,
        "radius": radius,
        "angle": rng.uniform(-ANGLE, ANGLE, count),
        "colour": colour,
        "background": background,
    }

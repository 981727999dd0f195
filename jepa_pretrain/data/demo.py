"""The embedded default data: rendered pictures whose factors are known, packed as shards.

The class is the shape; position, size, angle, colours and background vary and are stored beside each picture. A linear
probe on raw pixels stays near chance, since shape and background swap colours at random; k-NN on raw pixels does not,
since among thousands of flat pictures some look alike. The knobs below decide how hard the pictures are: minutes on two
cores must be enough for an encoder to learn from them.
"""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.shapes import SHAPES
from jepa_pretrain.data.writer import Plan, TarWriter, finish_shard, finished, shard_name, write_index
from jepa_pretrain.seeds import seed_of

RADIUS = (0.28, 0.42)  # of the picture's side
ANGLE = 0.4  # radians to either side
MARGIN = 0.75  # how much of its radius a shape keeps away from the border
CONTRAST = 0.30  # least distance of the shape's colour from the background's, of the RGB cube's diagonal
TEXTURE = 0.03  # deviation of the background's waves; values are in 0..1
SHADE = 0.02  # deviation of the shape's own waves
GRAIN = 0.02  # deviation of the noise on every pixel
WAVES = 3  # per texture
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
        _write_split(folder, split, count, size, seed_of(seed, number))
    write_index(folder)
    line = f"{train} + {val} pictures of {len(SHAPES)} shapes, {size} x {size} pixels, in {out}"
    Console(highlight=False).print(line, soft_wrap=True)


def _write_split(folder: Path, split: str, count: int, size: int, seed: int) -> None:
    shards = -(-count // SHARD)
    plan = Plan(split=split, plan=f"demo-{count}-{size}-{seed}", shards=shards, classes=list(SHAPES))
    done = finished(folder, plan)
    for number in range(shards):
        name = shard_name(split, number)
        if name in done:
            continue
        first, last = number * SHARD, min((number + 1) * SHARD, count)
        with TarWriter(folder / name) as tar:
            for place, fields in _samples(first, last, size, seed):
                tar.add(f"{split}-{place:06d}", fields)
        finish_shard(folder, tar, plan, [])


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
    cover = _coverage(factors, row)[..., None]  # (S, H, W, 1), 1 inside the shape
    background = factors["background"][:, None, None] + TEXTURE * _waves(count, row, rng)
    shape = factors["colour"][:, None, None] + SHADE * _waves(count, row, rng)
    pixels = background + cover * (shape - background)
    pixels += GRAIN * rng.standard_normal(pixels.shape, dtype=np.float32)
    return (pixels * 255).round().clip(0, 255).astype(np.uint8), factors


def _draw_factors(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    radius = rng.uniform(*RADIUS, count)
    room = 0.5 - MARGIN * radius
    colour, background = _draw_colours(count, rng)
    return {
        "label": rng.integers(0, len(SHAPES), count),
        "x": 0.5 + rng.uniform(-1, 1, count) * room,
        "y": 0.5 + rng.uniform(-1, 1, count) * room,
        "radius": radius,
        "angle": rng.uniform(-ANGLE, ANGLE, count),
        "colour": colour,
        "background": background,
    }


def _draw_colours(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two colours (S, 3) each, far enough apart to tell shape from background."""
    pairs = rng.uniform(0.1, 0.9, (16, count, 2, 3)).astype(np.float32)
    apart = np.linalg.norm(pairs[:, :, 0] - pairs[:, :, 1], axis=-1) > CONTRAST * 3**0.5
    chosen = pairs[apart.argmax(0), np.arange(count)]  # the first good one of sixteen; the first of all if none is
    return chosen[:, 0], chosen[:, 1]


def _coverage(factors: dict[str, np.ndarray], row: np.ndarray) -> np.ndarray:
    """(S, H, W) share of each pixel that lies inside the shape; linear across the edge, one pixel wide."""
    centre_x, centre_y, radius, angle = (factors[name][:, None, None].astype(np.float32) for name in FACTORS)
    dx, dy = row[None, None, :] - centre_x, row[None, :, None] - centre_y
    x = (np.cos(angle) * dx + np.sin(angle) * dy) / radius
    y = (np.cos(angle) * dy - np.sin(angle) * dx) / radius
    cover = np.empty(np.broadcast_shapes(x.shape, y.shape), dtype=np.float32)
    for label, shape in enumerate(SHAPES.values()):
        mine = factors["label"] == label
        cover[mine] = shape(x[mine], y[mine]) * radius[mine] * len(row)
    return (0.5 - cover).clip(0, 1)


def _waves(count: int, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S, H, W, 3) textures of deviation one: a few plane waves with random direction, length, phase and colour."""
    turn, phase = rng.uniform(0, 2 * np.pi, (2, count, WAVES, 1, 1)).astype(np.float32)
    cycles = rng.uniform(1.0, 6.0, (count, WAVES, 1, 1)).astype(np.float32)
    along = np.cos(turn) * row[None, None, None, :] + np.sin(turn) * row[None, None, :, None]
    waves = np.sin(2 * np.pi * cycles * along + phase)  # (S, WAVES, H, W)
    tint = rng.standard_normal((count, WAVES, 3), dtype=np.float32)
    return np.einsum("swhx,swc->shxc", waves, tint * (2 / WAVES) ** 0.5, optimize=True)

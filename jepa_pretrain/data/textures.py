"""What rendered pictures are painted with: textures, colours, and the pixels a shape covers."""

import numpy as np

from jepa_pretrain.data.shapes import SHAPES

CONTRAST = 0.30  # least distance of two colours, of the RGB cube's diagonal
WAVES = 3  # per texture


def waves(count: int, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S, H, W, 3) textures of deviation one: a few plane waves with random direction, length, phase and colour.

    Args:
        count: How many (S).
        row: (H,) the pixels' middles, in parts of the side.
        rng: Draws them.
    """
    turn, phase = rng.uniform(0, 2 * np.pi, (2, count, WAVES, 1, 1)).astype(np.float32)
    cycles = rng.uniform(1.0, 6.0, (count, WAVES, 1, 1)).astype(np.float32)
    along = np.cos(turn) * row[None, None, None, :] + np.sin(turn) * row[None, None, :, None]
    crests = np.sin(2 * np.pi * cycles * along + phase)  # (S, WAVES, H, W)
    tint = rng.standard_normal((count, WAVES, 3), dtype=np.float32)
    return np.einsum("swhx,swc->shxc", crests, tint * (2 / WAVES) ** 0.5, optimize=True)


def colour_pairs(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two colours (S, 3) each, far enough apart to tell shape from background.

    Args:
        count: How many pairs (S).
        rng: Draws them.
    """
    pairs = rng.uniform(0.1, 0.9, (16, count, 2, 3)).astype(np.float32)
    apart = np.linalg.norm(pairs[:, :, 0] - pairs[:, :, 1], axis=-1) > CONTRAST * 3**0.5
    chosen = pairs[apart.argmax(0), np.arange(count)]  # the first good one of sixteen; the first of all if none is
    return chosen[:, 0], chosen[:, 1]


def coverage(
    kind: np.ndarray, x: np.ndarray, y: np.ndarray, radius: np.ndarray, angle: np.ndarray, row: np.ndarray
) -> np.ndarray:
    """(S, H, W) share of each pixel that lies inside a shape; linear across the edge, one pixel wide.

    Args:
        kind: (S,) numbers of the shapes in `SHAPES`.
        x: (S,) their middles, in parts of the side.
        y: (S,)
        radius: (S,) in parts of the side.
        angle: (S,) radians.
        row: (H,) the pixels' middles, in parts of the side.
    """
    x, y, radius, angle = (one[:, None, None].astype(np.float32) for one in (x, y, radius, angle))
    dx, dy = row[None, None, :] - x, row[None, :, None] - y
    across = (np.cos(angle) * dx + np.sin(angle) * dy) / radius
    along = (np.cos(angle) * dy - np.sin(angle) * dx) / radius
    distance = np.empty(np.broadcast_shapes(across.shape, along.shape), dtype=np.float32)
    for label, shape in enumerate(SHAPES.values()):
        mine = kind == label
        distance[mine] = shape(across[mine], along[mine]) * radius[mine] * len(row)
    return (0.5 - distance).clip(0, 1)

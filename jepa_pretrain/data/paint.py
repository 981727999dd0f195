"""Scenes to frames, and what only a painter knows: which part of an object is visible, and how every pixel moves."""

import numpy as np
from numpy import ndarray as Array

from jepa_pretrain.data.textures import coverage
from jepa_pretrain.data.worlds import Scenes


def paint(scenes: Scenes) -> tuple[Array, Array]:
    """Paints scenes, later objects over earlier ones.

    Args:
        scenes: What to paint.

    Returns:
        Frames (S, T, H, W, 3) uint8, and the share of each object's pixels that can be seen, (S, T, O).
    """
    cover = covers(scenes.position, scenes.shape, scenes.radius, scenes.angle, scenes.background.shape[1])
    pixels = np.repeat(scenes.background[:, None], cover.shape[1], axis=1)  # (S, T, H, W, 3)
    for number in range(cover.shape[2]):
        colour = scenes.colour[:, number, None, None, None].astype(np.float32)
        pixels += cover[:, :, number, ..., None] * (colour - pixels)
    free = np.ones_like(cover[:, :, 0])
    seen = np.empty(cover.shape[:3])
    for number in reversed(range(cover.shape[2])):
        own = cover[:, :, number]
        seen[:, :, number] = (own * free).sum((-1, -2)) / own.sum((-1, -2)).clip(1e-6)
        free = free * (1 - own)
    return (pixels * 255).round().clip(0, 255).astype(np.uint8), seen


def covers(position: Array, shape: Array, radius: Array, angle: Array, size: int) -> Array:
    """(S, T, O, H, W) share of each pixel that each object covers, whatever lies in front of it.

    Args:
        position: (S, T, O, 2)
        shape: (S, O)
        radius: (S, O)
        angle: (S, O)
        size: Height and width, pixels.
    """
    scenes, frames, objects, _ = position.shape
    every = [np.broadcast_to(one[:, None], (scenes, frames, objects)).reshape(-1) for one in (shape, radius, angle)]
    row = ((np.arange(size) + 0.5) / size).astype(np.float32)
    x, y = position.reshape(-1, 2).T
    return coverage(every[0], x, y, every[1], every[2], row).reshape(scenes, frames, objects, size, size)


def flow(position: Array, shape: Array, radius: Array, angle: Array, size: int) -> Array:
    """How every pixel moves to the next frame, rebuilt from the truth.

    Args:
        position: (S, T, O, 2)
        shape: (S, O)
        radius: (S, O)
        angle: (S, O)
        size: Height and width, pixels.

    Returns:
        (S, T - 1, 2, H, W) float32, pixels to the right and down, of what is in front there; 0 on the background.
    """
    cover = covers(position, shape, radius, angle, size)[:, :-1]
    moved = (np.diff(position, axis=1) * size).astype(np.float32)  # (S, T - 1, O, 2)
    field = np.zeros((*moved.shape[:2], 2, size, size), dtype=np.float32)
    for number in range(moved.shape[2]):
        inside = cover[:, :, number, None] >= 0.5
        field = np.where(inside, moved[:, :, number, :, None, None], field)
    return field

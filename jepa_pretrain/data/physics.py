"""How things move in the rendered world: straight on, back from walls, and off each other; nothing is lost.

Lengths are in parts of the picture's side, x to the right, y down; time is in frames. Discs stand for all shapes, their
mass is their radius squared. Everything is vectorised over scenes.
"""

from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array

STEPS = 4  # per frame, so that nothing tunnels


class Motion(NamedTuple):
    """Where things are at each frame."""

    position: Array  # (S, T, O, 2)
    velocity: Array  # (S, T, O, 2), with which they arrive; in parts of the side per frame


def bounce(
    position: Array,
    velocity: Array,
    radius: Array,
    layer: Array,
    frames: int,
    push: Array | None = None,
    damping: float = 1.0,
) -> Motion:
    """Moves objects that hit the walls, and those of their own layer; others pass before or behind them.

    A frame begins with velocity = damping * velocity + push, for the first object; between collisions, its position
    then grows by this velocity.

    Args:
        position: (S, O, 2) at the first frame.
        velocity: (S, O, 2) at the first frame.
        radius: (S, O)
        layer: (O,) whole numbers.
        frames: How many (T).
        push: (S, T, 2) change of the first object's velocity at each frame; None for free motion.
        damping: What remains of the first object's velocity after a frame, before it is pushed.
    """
    position, velocity = position.astype(np.float64), velocity.astype(np.float64)
    places, speeds = [], []
    for frame in range(frames):
        places.append(position.copy())
        speeds.append(velocity.copy())
        if push is not None:
            velocity[:, 0] = damping * velocity[:, 0] + push[:, frame]
        for _ in range(STEPS):
            position += velocity / STEPS
            _walls(position, velocity, radius)
            _collisions(position, velocity, radius, layer)
    return Motion(np.stack(places, 1), np.stack(speeds, 1))


def _walls(position: Array, velocity: Array, radius: Array) -> None:
    """Mirrors what has left the room; in place."""
    low, high = radius[..., None], 1 - radius[..., None]
    under, over = position < low, position > high
    position[:] = np.where(under, 2 * low - position, np.where(over, 2 * high - position, position))
    velocity[:] = np.where(under, np.abs(velocity), np.where(over, -np.abs(velocity), velocity))


def _collisions(position: Array, velocity: Array, radius: Array, layer: Array) -> None:
    """Elastic collisions of discs that touch and approach each other; in place. Momentum and energy stay."""
    for one in range(len(layer)):
        for two in range(one + 1, len(layer)):
            if layer[one] != layer[two]:
                continue
            apart = position[:, two] - position[:, one]  # (S, 2)
            distance = np.linalg.norm(apart, axis=-1).clip(1e-9)
            normal = apart / distance[:, None]
            closing = ((velocity[:, two] - velocity[:, one]) * normal).sum(-1)  # (S,)
            hit = (distance < radius[:, one] + radius[:, two]) & (closing < 0)
            masses = radius[:, one] ** 2, radius[:, two] ** 2
            impulse = np.where(hit, 2 * masses[0] * masses[1] / (masses[0] + masses[1]) * closing, 0)
            velocity[:, one] += (impulse / masses[0])[:, None] * normal
            velocity[:, two] -= (impulse / masses[1])[:, None] * normal


def roll(corners: Array, speed: Array, growth: Array, frames: int) -> Motion:
    """Rolls one object down a bent track, quicker and quicker.

    Args:
        corners: (S, 3, 2) beginning, bend and end of the track; it goes on straight behind its end.
        speed: (S,) at the first frame.
        growth: (S,) of the speed, per frame.
        frames: How many (T).
    """
    time = np.arange(frames + 1)
    covered = speed[:, None] * time + growth[:, None] * time**2 / 2  # (S, T + 1) length of track
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1]
    length = np.linalg.norm(first, axis=-1, keepdims=True)
    before = np.minimum(covered, length)[..., None] * (first / length)[:, None]
    ahead = second / np.linalg.norm(second, axis=-1, keepdims=True)
    behind = np.maximum(covered - length, 0)[..., None] * ahead[:, None]
    position = corners[:, :1] + before + behind  # (S, T + 1, 2)
    return Motion(position[:, :-1, None], np.diff(position, axis=1)[:, :, None])

"""Ten shapes as signed distances, vectorised over pictures: negative inside, in units of the shape's radius.

Each function takes coordinates `x`, `y` of shape (S, H, W), already turned and scaled so that the shape fills about
the unit circle, y pointing down. The formulas are elementary; distances are exact enough near the edge to anti-alias.
"""

import numpy as np
from numpy import ndarray as Array


def disc(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - 0.9


def ring(x: Array, y: Array) -> Array:
    return np.abs(np.hypot(x, y) - 0.75) - 0.22


def crescent(x: Array, y: Array) -> Array:
    return np.maximum(np.hypot(x, y) - 0.95, 0.75 - np.hypot(x - 0.45, y))


def square(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - 0.78


def bar(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x) - 1.0, np.abs(y) - 0.3)


def cross(x: Array, y: Array) -> Array:
    a, b = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    return np.maximum(a - 0.95, b - 0.28)


def triangle(x: Array, y: Array) -> Array:
    """Equilateral, a tip up."""
    return np.maximum(np.abs(x) * 0.866 - y * 0.5, y) - 0.5


def star(x: Array, y: Array) -> Array:
    """Five points; in one sector the edge is the straight line from a tip (radius 1) to a notch (radius 0.42)."""
    sector = np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + sector) % (2 * sector) - sector)  # 0 at a tip, pi/5 at a notch
    px, py = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.sin(angle)
    notch = 0.42 * np.array([np.cos(sector), np.sin(sector)])
    edge = notch - np.array([1.0, 0.0])
    return ((px - 1.0) * edge[1] - py * edge[0]) / np.hypot(*edge)


def heart(x: Array, y: Array) -> Array:
    """Two discs on a triangle."""
    lobes = np.hypot(np.abs(x) - 0.43, y + 0.35) - 0.5
    point = (np.abs(x) + y) * 0.7071 - 0.557  # touches the lobes
    return np.minimum(lobes, np.maximum(point, -0.1 - y))


def pair(x: Array, y: Array) -> Array:
    """Two small discs."""
    return np.hypot(np.abs(x) - 0.55, y) - 0.42


SHAPES = {
    "bar": bar,
    "crescent": crescent,
    "cross": cross,
    "disc": disc,
    "heart": heart,
    "pair": pair,
    "ring": ring,
    "square": square,
    "star": star,
    "triangle": triangle,
}

"""How sure an accuracy is, from the number of test samples alone (not from seeds)."""

import math


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson 1927); z = 1.96 gives 95 %.

    Args:
        hits: Number of successes.
        n: Number of trials, at least one.
        z: Quantile of the normal distribution.

    Returns:
        Lower and upper bound, within 0..1.
    """
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)

"""Trials in `PointMaze_UMaze-v3` from one arm of the U to the other: a straight line meets the wall between them.

Goals as the maze draws them are half of them in the same arm, or round one corner.
"""

import numpy as np

from jepa_pretrain.agent.trials import Trial

NAME = "PointMaze_UMaze-v3"
ARM, HEIGHT, NOISE = (-1.25, 0.25), 1.0, 0.25  # x in either arm; y of its middle, up or down; how far from there


def far_trials(count: int, seed: int) -> list[Trial]:
    """Start and goal drawn evenly from opposite arms.

    Args:
        count: How many.
        seed: Names them.
    """
    rng, trials = np.random.default_rng([seed, 6]), []
    for _ in range(count):
        side = rng.choice([-1.0, 1.0])
        places = [np.array([rng.uniform(*ARM), arm * HEIGHT + rng.uniform(-NOISE, NOISE)]) for arm in (side, -side)]
        start, goal = (one.astype(np.float32) for one in places)
        options = {"state": start, "target_state": goal}
        trials.append(Trial(int(rng.integers(2**31)), options, options | {"state": goal}, "far"))
    return trials

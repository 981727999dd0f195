"""Trials in `swm/TwoRoom-v1`, where an agent has to find the door between two rooms.

`offset`: stable-worldmodel's protocol. Start and goal are 25 steps apart in an episode of the expert; those whose goal
lies behind the wall are counted by themselves, since a straight line reaches the others. `far`: start and goal drawn
evenly from opposite rooms. Starts that are at their goal already are left out of both.
"""

import numpy as np
import torch

from jepa_pretrain.agent.behaviours import BORDER, TwoRoomExpert
from jepa_pretrain.agent.environments import Environments, Options
from jepa_pretrain.agent.rollouts import play
from jepa_pretrain.agent.trials import Trial
from jepa_pretrain.contracts import Episode, UserError

NAME = "swm/TwoRoom-v1"
WALL, REACH = 112.0, 16.0  # pixels: where the wall is, and how near is there
ROOM = ((21.0, 99.0), (125.0, 203.0))  # where the agent can be in either room, x
ROUNDS = 100  # of expert episodes, at most


def options_of(variation: list[str] | None) -> Options:
    """Reset options that vary more than positions, such as `["door.position"]`."""
    return {"variation": ["agent.position", "target.position", *variation]} if variation else {}


def offset_trials(
    environments: Environments, count: int, seed: int, variation: list[str] | None, offset: int = 25
) -> list[Trial]:
    """Start and goal from expert episodes that are played now.

    Args:
        environments: Where they are played.
        count: How many.
        seed: Names the episodes and the places in them.
        variation: What varies beside positions.
        offset: Steps from start to goal.
    """
    rng, trials, options = np.random.default_rng([seed, 2]), [], options_of(variation)
    for turn in range(ROUNDS):
        seeds = [int(one) for one in np.random.default_rng([seed, 3, turn]).integers(2**31, size=environments.count)]
        each = [dict(options) for _ in seeds]
        for one, episode in zip(seeds, play(environments, TwoRoomExpert(), seeds, 200, each, look=False), strict=True):
            if isinstance(episode, Episode) and len(episode.proprio) > offset:
                place = int(rng.integers(len(episode.proprio) - offset))
                start, goal = episode.proprio[place], episode.proprio[place + offset]
                if (goal - start).norm() >= REACH:
                    trials.append(_trial(one, options, start, goal))
                if len(trials) == count:
                    return trials
    raise UserError(f"the expert's episodes in {NAME} are too short for goals {offset} steps ahead")


def far_trials(count: int, seed: int, variation: list[str] | None) -> list[Trial]:
    """Start and goal in opposite rooms; arguments as above."""
    rng, options = np.random.default_rng([seed, 4]), options_of(variation)
    trials = []
    for _ in range(count):
        side = int(rng.integers(2))
        start, goal = (torch.tensor([rng.uniform(*ROOM[s]), rng.uniform(*BORDER)]).float() for s in (side, 1 - side))
        trials.append(_trial(int(rng.integers(2**31)), options, start, goal))
    return trials


def _trial(seed: int, options: Options, start: torch.Tensor, goal: torch.Tensor) -> Trial:
    kind = "across" if (start[0] > WALL) != (goal[0] > WALL) else "same room"
    begin, end = start.numpy(), goal.numpy()
    return Trial(
        seed, options | {"state": begin, "target_state": end}, options | {"state": end, "target_state": end}, kind
    )

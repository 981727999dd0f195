"""Trials that an environment draws by itself: start and goal as its state tells them after a reset."""

import numpy as np
import torch

from jepa_pretrain.agent.environments import Environments, Options
from jepa_pretrain.agent.pointmaze import REACH
from jepa_pretrain.agent.trials import Trial
from jepa_pretrain.contracts import UserError

ROUNDS = 100  # of resets, at most
NEAR = 0.1  # in worlds that are one unit wide


def drawn_trials(
    environments: Environments, count: int, seed: int, options: Options | None = None, apart: float | None = None
) -> list[Trial]:
    """Trials in environments that can be put at their goal.

    Their state begins with the agent's place (2) and the goal's (2), and their reset takes the options `state` and
    `target_state`, places both: the worlds of this package, and stable-worldmodel's TwoRoom.

    Args:
        environments: where.
        count: how many.
        seed: names them.
        options: further reset options.
        apart: starts nearer to their goal than this count as solved and are left out; by default what the environment
            calls near.

    Raises:
        UserError: an environment that cannot be put at its goal, or that hardly draws a start away from it.
    """
    trials: list[Trial] = []
    apart = (REACH if environments.name.startswith("PointMaze") else NEAR) if apart is None else apart
    for turn in range(ROUNDS):
        seeds = [int(one) for one in np.random.default_rng([seed, 5, turn]).integers(2**31, size=environments.count)]
        begin = dict(options or {})
        state = environments.reset(seeds, [dict(begin) for _ in seeds]).state
        if state.shape[1] < 4:
            raise UserError(f"{environments.name} does not tell its goal: its state has {state.shape[1]} numbers")
        ends = [begin | {"state": one[2:4].numpy(), "target_state": one[2:4].numpy()} for one in state]
        if not turn:
            _check(environments, seeds, ends, state[:, 2:4])
        far = (state[:, 2:4] - state[:, :2]).norm(dim=1) >= apart
        trials += [Trial(seeds[row], begin, ends[row], "drawn") for row in far.nonzero()[:, 0].tolist()]
        if len(trials) >= count:
            return trials[:count]
    raise UserError(f"{environments.name} hardly draws a start away from its goal: {len(trials)} of {count} found")


def _check(environments: Environments, seeds: list[int], ends: list[Options], goal: torch.Tensor) -> None:
    """The options must have put every agent at its goal."""
    found = environments.reset(seeds, ends).state[:, :2]
    if not torch.allclose(found, goal, atol=1e-3):
        raise UserError(
            f"{environments.name} cannot be put at its goal (its reset knows no options state and target_state), "
            "so there is no goal picture"
        )

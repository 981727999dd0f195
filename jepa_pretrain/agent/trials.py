"""Trials: a start, a goal picture, a budget of steps; whoever acts is told no more than that.

Many trials are run side by side. A trial counts as won if its environment says so at any step within the budget.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from jepa_pretrain.agent.actor import Decides
from jepa_pretrain.agent.agent import staged_task
from jepa_pretrain.agent.behaviours import Behaviour
from jepa_pretrain.agent.environments import Environments, Options, Seen
from jepa_pretrain.agent.sight import Sight, goal_state
from jepa_pretrain.agent.stages import Stages
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import WorldModel


class Trial(NamedTuple):
    """One start and its goal."""

    seed: int  # of the reset, which decides all that the options leave open
    start: Options  # reset options that put the agent where it begins, and tell the environment its goal
    goal: Options  # reset options under which the environment looks as it does at the goal
    kind: str  # for the table: trials of one kind are counted together


class Outcome(NamedTuple):
    """What became of some trials."""

    won: list[bool]
    failed: list[bool]  # the environment threw
    steps: list[int]  # until the end, at most the budget
    thinking: float  # seconds spent in deciding
    actions: int  # environment actions decided on
    decisions: int  # plans, counted for each trial by itself


class Actor(Protocol):
    """Who acts: told the goal once, then asked again and again."""

    def begin(self, goal: Tensor) -> None:
        """The goal pictures `(B, C, H, W)` of new trials."""
        ...

    def act(self, seen: Seen, look: Callable[[], Tensor]) -> Tensor:
        """The next actions `(B, k, a)`, k steps at once; `look` gives the pictures `(B, C, H, W)`, and costs time."""
        ...


class Pursuit:
    """An agent after the goals of trials: encodes what it sees, decides on a block of actions, looks again.

    Args:
        model: The world model, which encodes.
        decides: A planner or a policy.
        task: Horizon, weights and guardrails; its goal is replaced by those of the trials.
        stages: Sub-goals that are pursued in place of the trials' pictures.
    """

    def __init__(self, model: WorldModel, decides: Decides, task: Task, stages: Stages | None = None) -> None:
        self.model, self.decides, self.task, self.stages = model, decides, task, stages
        self.sight = Sight(model.frames)

    def begin(self, goal: Tensor) -> None:
        if self.stages is None:
            self.task = replace(self.task, goal=goal_state(self.model, goal))
        else:
            self.stages.begin(len(goal))
        self.decides.begin(len(goal))
        self.sight.begin(len(goal))

    def act(self, seen: Seen, look: Callable[[], Tensor]) -> Tensor:
        frames, on = look(), seen.running.nonzero()[:, 0]  # trials that are over need no plan
        state = self.model.encode(self.sight.look(frames[on], on))
        task = staged_task(self.task, self.stages, state, on, self.decides)
        action = self.decides.act(state, task, on)
        filled = action.new_zeros(len(frames), action.shape[1]).index_copy(0, on, action)
        return filled.unflatten(1, (self.model.block, -1))  # (B, block, a)


class Acting:
    """A behaviour as an actor, one step at a time; scripted ones see the truth and need no goal picture.

    Args:
        behaviour: What acts.
        seeds: Of what it draws in each environment.
    """

    def __init__(self, behaviour: Behaviour, seeds: list[int]) -> None:
        self.behaviour, self.seeds, self.round = behaviour, seeds, 0

    def begin(self, goal: Tensor) -> None:
        self.behaviour.begin()
        self._rngs = [np.random.default_rng([seed, self.round]) for seed in self.seeds]
        self.round += 1

    def act(self, seen: Seen, look: Callable[[], Tensor]) -> Tensor:
        return self.behaviour.act(seen, self._rngs)[:, None]


Watch = Callable[[Seen, bool], None]  # what all environments show after a reset (True) or a step


def run(
    environments: Environments, actor: Actor, trials: list[Trial], budget: int, watch: Watch | None = None
) -> Outcome:
    """Runs trials, as many at a time as there are environments.

    Args:
        environments: Where.
        actor: Who acts.
        trials: Starts and goals.
        budget: Steps that each may take.
        watch: Sees everything; trials run as many at a time as there are environments, in order.
    """
    parts = [
        _together(environments, actor, trials[first : first + environments.count], budget, watch)
        for first in range(0, len(trials), environments.count)
    ]
    lists = [[one for part in parts for one in part[column]] for column in range(3)]
    return Outcome(*lists, *(sum(part[column] for part in parts) for column in range(3, 6)))


def _together(
    environments: Environments, actor: Actor, trials: list[Trial], budget: int, watch: Watch | None
) -> Outcome:
    """As many trials as environments, or fewer: the last ones are filled up with repeats that are not counted."""
    count = len(trials)
    counted = torch.arange(environments.count) < count
    filled = trials + [trials[-1]] * (environments.count - count)
    seeds = [one.seed for one in filled]
    environments.reset(seeds, [one.goal for one in filled])
    actor.begin(environments.pictures())
    seen = environments.reset(seeds, [one.start for one in filled])
    seen = seen._replace(running=seen.running & counted)
    won = torch.zeros(environments.count, dtype=torch.bool)
    steps, thinking, actions, decisions = torch.zeros(environments.count, dtype=torch.int64), 0.0, 0, 0
    looked = 0.0
    if watch is not None:
        watch(seen, True)

    def look() -> Tensor:
        nonlocal looked
        began = time.perf_counter()
        pictures = environments.pictures()
        looked += time.perf_counter() - began
        return pictures

    done = 0
    while done < budget and seen.running.any():
        began, looked = time.perf_counter(), 0.0
        block = actor.act(seen, look)[:, : budget - done]
        thinking += time.perf_counter() - began - looked  # rendering is the world's time, not the agent's
        running = int(seen.running.sum())
        actions, decisions = actions + running * block.shape[1], decisions + running
        for action in block.unbind(1):
            steps += seen.running
            seen = environments.step(action)
            seen = seen._replace(running=seen.running & counted)
            if watch is not None:
                watch(seen, False)
            won |= seen.reached
            done += 1
    failed = seen.failed[:count]
    return Outcome(won[:count].tolist(), failed.tolist(), steps[:count].tolist(), thinking, actions, decisions)

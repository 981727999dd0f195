"""One episode of an agent in one environment, as the library is used: `pursue` a picture, then `act`."""

import time
from typing import NamedTuple

from torch import Tensor

from jepa_pretrain.acting.load import load_size
from jepa_pretrain.agent import tworoom
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.drawn import drawn_trials
from jepa_pretrain.agent.environments import Environments
from jepa_pretrain.agent.show import Recorder
from jepa_pretrain.agent.stages import Stages
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.trials import Trial
from jepa_pretrain.agent.world_model import Discrete
from jepa_pretrain.contracts import UserError


class Ended(NamedTuple):
    """What became of an episode."""

    won: bool
    failed: str  # what the environment threw; empty if nothing
    steps: int
    thinking: float  # seconds spent in `act`
    decisions: int


def place(agent: Agent, env: str, count: int = 1) -> Environments:
    """Environments that an agent can act in.

    Args:
        agent: who will.
        env: Gymnasium id.
        count: how many.

    Raises:
        UserError: actions of another width or kind than the agent's.
    """
    environments = Environments(env, count, load_size(agent.model))
    check_actions(agent, environments)
    return environments


def check_actions(agent: Agent, environments: Environments) -> None:
    """Refuse an environment whose actions are not those the agent was trained on."""
    found, width = environments.actions, agent.model.action.width // agent.model.block
    known = (width, isinstance(agent.model.action, Discrete))
    if (found.width, found.discrete) != known:
        words = {True: "choices", False: "numbers"}
        raise UserError(
            f"{environments.name} takes {found.width} {words[found.discrete]} as an action, "
            f"this agent gives {known[0]} {words[known[1]]}: it was trained elsewhere"
        )


def trials_of(environments: Environments, count: int, seed: int, variation: list[str] | None) -> list[Trial]:
    """Starts and goals: in opposite rooms in TwoRoom, elsewhere as the environment draws them."""
    if environments.name == tworoom.NAME:
        return tworoom.far_trials(count, seed, variation)
    return drawn_trials(environments, count, seed)


def goal_of(environments: Environments, trial: Trial) -> Tensor:
    """The goal picture of a trial, `(1, C, H, W)`, in one environment."""
    environments.reset([trial.seed], [trial.goal])
    return environments.pictures()


def pursue(
    agent: Agent,
    environments: Environments,
    trial: Trial,
    budget: int,
    goal: Tensor,
    watch: Recorder | None = None,
    stages: tuple[Task, Stages] | None = None,
) -> Ended:
    """Let an agent try.

    Args:
        agent: who.
        environments: one.
        trial: where it starts.
        budget: steps.
        goal: the picture to reach, `(1, C, H, W)` uint8.
        watch: is shown every step.
        stages: a task of several stages, in place of the picture.
    """
    seen, thinking, steps, decisions = environments.reset([trial.seed], [trial.start]), 0.0, 0, 0
    if stages is None:
        agent.pursue(goal)
    else:
        agent.undertake(*stages, environments.count)
    while steps < budget and seen.running.all():
        frame = environments.pictures()
        decisions += bool(agent.done[0] >= agent.model.block)
        began = time.perf_counter()
        action = agent.act(frame)
        thinking += time.perf_counter() - began
        if watch is not None:
            watch.watch(frame[0])
        seen, steps = environments.step(action), steps + 1
        if seen.reached.any():
            break
    if watch is not None:
        watch.end(environments.pictures()[0])
    return Ended(bool(seen.reached[0]), environments.faults()[0], steps, thinking, decisions)

"""Named tasks in environments: what an agent is asked, the trials, and whether their stages were really passed."""

from pathlib import Path

import torch
from torch import Tensor

from jepa_pretrain.acting.load import load_size
from jepa_pretrain.acting.pictures import read_goal
from jepa_pretrain.agent.agent import Agent
from jepa_pretrain.agent.drawn import drawn_trials
from jepa_pretrain.agent.environments import Environments, Seen
from jepa_pretrain.agent.named import Named, read_named, staged
from jepa_pretrain.agent.sight import goal_state
from jepa_pretrain.agent.stages import Stages
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.trials import Trial
from jepa_pretrain.contracts import UserError

NEAR = 0.5  # of the usual squared distance of states a step apart, where nothing else says what is near


def undertaking(mind: Agent, source: str) -> tuple[Named, Task, Stages]:
    """A named task for an agent.

    Args:
        mind: who.
        source: `FILE.json:NAME`.
    """
    named, size = read_named(source), load_size(mind.model)

    def picture(path: Path) -> Tensor:
        return goal_state(mind.model, read_goal(str(path), size))

    near = NEAR * float(mind.configurator.usual.distance) if mind.configurator else 0.0
    if not near and mind.readout is None and named.near is None:
        raise UserError(f"the task {named.name} does not say what is near, nor does the agent: run `agent configure`")
    return named, *staged(named, mind.task, mind.readout, near, picture)


class Passed:
    """A watch that follows the true place through the stages of a task, whatever the agent believes.

    Args:
        places: of the stages, `(G, P)`.
        near: within this distance a stage is passed.
        count: trials in all.
        parallel: at a time.
    """

    def __init__(self, places: Tensor, near: float, count: int, parallel: int) -> None:
        self.places, self.near, self.parallel = places, near, parallel
        self.stage = torch.zeros(-(-count // parallel) * parallel, dtype=torch.int64)
        self.first = -parallel

    def __call__(self, seen: Seen, begins: bool) -> None:
        """Looks at every step of the trials, which run `parallel` at a time."""
        self.first += self.parallel * begins
        part = self.stage[self.first : self.first + self.parallel]
        goal = self.places[part.clamp(max=len(self.places) - 1)]
        there = (seen.proprio[:, : goal.shape[1]] - goal).norm(dim=1) < self.near
        part += there & (part < len(self.places))

    def won(self, count: int) -> list[bool]:
        """Which of the first trials passed all stages, in order."""
        return (self.stage[:count] == len(self.places)).tolist()


def staged_trials(environments: Environments, named: Named, count: int, seed: int) -> list[Trial]:
    """Trials that start anywhere; the environment's own goal is the last stage, so that it ends them there.

    Args:
        environments: where.
        named: a task whose goals are places.
        count: how many.
        seed: names them.

    Raises:
        UserError: goals that are pictures: nobody could judge whether they were passed.
    """
    if any(isinstance(one, str) for one in named.goals):
        raise UserError(
            f"the task {named.name} has goals that are pictures; `agent plan` tries those, eval judges places"
        )
    last = torch.tensor(named.goals[-1]).numpy()
    found = drawn_trials(environments, count, seed, {"target_state": last})
    return [one._replace(kind=named.name) for one in found]

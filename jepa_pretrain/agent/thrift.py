"""How `Thrift` learns what thinking is worth: from imagined steps in recorded states, and from trying modes."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from jepa_pretrain.agent.configurator import GAINS, MODES, REACT, Choice, Chooser, Configurator, Situation, Thrift
from jepa_pretrain.agent.learning import descend
from jepa_pretrain.agent.mixture import Mixture
from jepa_pretrain.agent.surprise import energy, predicted
from jepa_pretrain.agent.task import Task
from jepa_pretrain.contracts import UserError

TRIED = (0.5, 0.3, 0.2)  # how often each mode is tried


class Lessons(NamedTuple):
    """What modes brought."""

    features: Tensor  # (M, 6) of situations
    fall: Tensor  # (M, modes) what came off the cost in one block, in usual steps; NaN where it was not tried

    @classmethod
    def join(cls, several: list["Lessons"]) -> "Lessons":
        """One after the other."""
        return cls(*(torch.cat(one) for one in zip(*several, strict=True)))


@dataclass
class Trying:
    """A chooser that tries modes at random, and otherwise follows another one.

    Args:
        generator: draws, on the CPU.
        follows: what it follows.
        share: of decisions that are tried.
    """

    generator: torch.Generator
    follows: Chooser
    share: float = 1.0

    def choose(self, situation: Situation) -> Choice:
        """`(B,)` each."""
        choice, count = self.follows.choose(situation), len(situation.cost)
        tried = torch.multinomial(torch.tensor(TRIED), count, True, generator=self.generator)
        here = torch.rand(count, generator=self.generator) < self.share
        return Choice(torch.where(here, tried, choice.mode), choice.why)


@dataclass
class Always:
    """A chooser of one mode.

    Args:
        mode: index of `MODES`.
    """

    mode: int = REACT

    def choose(self, situation: Situation) -> Choice:
        """`(B,)` each."""
        mode = torch.full_like(situation.cost, self.mode, dtype=torch.int64)
        return Choice(mode, torch.full_like(mode, GAINS))


@dataclass
class Noting:
    """A mixture whose every decision, and what came of it, is noted; acts as the mixture does.

    Args:
        mixture: acts.
    """

    mixture: Mixture
    open: dict[int, tuple[Tensor, float, int]] = field(default_factory=dict)  # of each environment, its last decision
    features: list[Tensor] = field(default_factory=list)
    falls: list[tuple[int, float]] = field(default_factory=list)  # mode, what came off the cost

    def begin(self, environments: int) -> None:
        """Episodes that were not over by then ran out of steps: what came of their last decision is not known."""
        self.open.clear()
        self.mixture.begin(environments)

    def forget(self, rows: Tensor) -> None:
        for row in rows.tolist():
            self.open.pop(row, None)
        self.mixture.forget(rows)

    def act(self, state: Tensor, task: Task, rows: Tensor | None = None) -> Tensor:
        action = self.mixture.act(state, task, rows)
        names = list(range(len(state))) if rows is None else rows.tolist()
        situation, choice = self.mixture.situation, self.mixture.choice
        cost = dict(zip(names, situation.cost.tolist(), strict=True))
        for name, (features, before, mode) in self.open.items():  # whoever is not asked again has arrived
            self.features.append(features)
            self.falls.append((mode, before - cost.get(name, 0.0)))
        self.open = dict(
            zip(
                names,
                zip(situation.features(), situation.cost.tolist(), choice.mode.tolist(), strict=True),
                strict=True,
            )
        )
        return action

    def lessons(self) -> Lessons:
        """What was noted so far."""
        if not self.falls:
            raise UserError("no decision was noted: the trials were over before a second one")
        fall = torch.full((len(self.falls), len(MODES)), torch.nan)
        for place, (mode, amount) in enumerate(self.falls):
            fall[place, mode] = amount
        return Lessons(torch.stack(self.features), fall)


def imagine_lessons(mixture: Mixture, task: Task, states: Tensor, goals: Tensor) -> Lessons:
    """What each mode would bring in recorded states, if the model is right.

    Args:
        mixture: its chooser is not asked.
        task: horizon and weights; its goal is replaced.
        states: `(P, N, D)`.
        goals: `(P, N, D)`.
    """
    task, own = (
        Task(goals, task.horizon, task.u, task.v, task.guardrails, task.risk, task.samples),
        mixture.configurator,
    )
    falls = []
    for mode in range(len(MODES)):
        mixture.configurator = Configurator(Always(mode), own.usual, own.little, own.horizon)
        mixture.begin(len(states))
        action = mixture.act(states, task)
        after = energy(mixture.cost, predicted(mixture.model, states, action), task) / own.usual.step
        falls.append(mixture.situation.cost - after)
    mixture.configurator = own
    return Lessons(mixture.situation.features(), torch.stack(falls, 1))


def learn(thrift: Thrift, lessons: Lessons, generator: torch.Generator, steps: int = 1000, batch: int = 256) -> float:
    """Fit the network to lessons.

    Args:
        thrift: trained in place.
        lessons: of which some modes are unknown.
        generator: draws the batches, on the CPU.
        steps: of AdamW.
        batch: lessons per step.

    Returns:
        The loss at the end: squared usual steps.
    """
    features, known = lessons.features, lessons.fall.isfinite()
    fall = lessons.fall.nan_to_num().clamp(-10, 10)
    thrift.centre.copy_(features.mean(0))
    thrift.scale.copy_(features.std(0).clamp_min(1e-3))

    def loss(chosen: Tensor) -> Tensor:
        off = (thrift(features[chosen]) - fall[chosen]).square() * known[chosen]
        return off.sum() / known[chosen].sum().clamp_min(1)

    return descend(thrift, len(features), loss, generator, steps, batch, 1e-3)

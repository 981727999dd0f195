"""What went on in an agent during one episode, as plain tensors that `report/episode.py` draws."""

from typing import NamedTuple

import torch
from torch import Tensor

from jepa_pretrain.agent.agent import Agent, Decision
from jepa_pretrain.agent.searches import hierarchy_of
from jepa_pretrain.agent.uncertainty import Stochastic, futures, spread
from jepa_pretrain.agent.world_model import imagine
from jepa_pretrain.contracts import UserError


class Chosen(NamedTuple):
    """How a configurator had it act, and what it saw."""

    mode: int  # index of `configurator.MODES`
    why: int  # index of `configurator.WHY`
    cost: float
    gain: float
    surprise: float


class Level(NamedTuple):
    """What one level of a hierarchy thought, in one decision; H' steps, 0 where it had nothing to add."""

    number: int  # from 2
    block: int  # environment steps in one of its own
    frames: Tensor  # (H', C, H, W) uint8: the recorded frames nearest to where it wants to go; the first is a sub-goal
    distance: Tensor  # (H',) how far these frames' states lie from there, in its own latent space
    places: Tensor | None  # (H', 2) where the agent was in these frames
    branches: Tensor | None  # (K, H', 2) likewise, of plans that it considered


class Thought(NamedTuple):
    """One decision, and when it was made."""

    step: int  # of the environment
    imagined: Tensor  # (L, C, H, W) uint8: of the recorded frames those nearest to the imagined states
    distance: Tensor  # (L,) how far the imagined states lie from the states of these frames
    candidates: Tensor  # (K, L * block, a) plans it weighed last, the best first, as actions of the environment
    terms: dict[str, float]  # every term of the cost, of what it saw
    safe: bool  # its plan keeps all hard guardrails
    chosen: Chosen | None = None
    levels: tuple[Level, ...] = ()  # the upper levels of a hierarchy, from the second upwards
    places: Tensor | None = None  # (L, 2) where the agent was in the imagined frames
    branches: Tensor | None = None  # (K, L, 2) likewise, of plans that it weighed, or of what chance may bring


class Episode(NamedTuple):
    """All that a page needs."""

    frames: Tensor  # (T, C, H, W) uint8, what it saw at every step of the environment
    goal: Tensor  # (C, H, W) uint8
    block: int  # environment steps per step of the model
    thoughts: list[Thought]


class Recorder:
    """Watches one environment of an agent.

    Args:
        agent: is made to keep what it imagines (`watched`).
        goal: the picture it pursues, `(C, H, W)` uint8.
        bank: recorded observations `(M, 3 * frames, H, W)` uint8, in which imagined states are looked up; of each the
            picture of then is shown, which is its last.
        row: which environment.
        batch: observations of the bank that are encoded at once.
        places: where the agent was in the frames of the bank, `(M, 2)` from 0 to 1, for a map; None without.

    Raises:
        UserError: an empty bank, or frames of another size than the goal.
    """

    def __init__(
        self,
        agent: Agent,
        goal: Tensor,
        bank: Tensor,
        row: int = 0,
        batch: int = 256,
        places: Tensor | None = None,
    ) -> None:
        pictures = bank[:, -len(goal) :]
        if not len(bank) or pictures.shape[1:] != goal.shape:
            raise UserError(f"imagined states are shown by frames {tuple(goal.shape)}, found {tuple(bank.shape)}")
        agent.watched = True
        self.agent, self.goal, self.bank, self.row = agent, goal, pictures, row
        self.places = places
        with torch.no_grad():
            states = torch.cat([agent.model.encode(one) for one in bank.split(batch)])  # (M, N, D)
            found = hierarchy_of(agent.planner)
            self.uppers = found.levels if found else ()
            self.states = [states]  # of every level
            for level in self.uppers:
                self.states.append(level.lift(self.states[-1][:, None])[:, 0])
        self.frames: list[Tensor] = []
        self.thoughts: list[Thought] = []
        self.seen = agent.last

    def watch(self, frame: Tensor) -> None:
        """Call it after each `agent.act`, with the frame that the agent was shown, `(C, H, W)`."""
        decision = self.agent.last
        if decision is not None and decision is not self.seen and (decision.rows == self.row).any():
            place = int((decision.rows == self.row).nonzero()[0])
            distance, nearest = self._nearest(decision.states[place])
            plans = decision.action[place, None, None] if decision.plan is None else decision.plan.candidates[place]
            branches = self._branches(decision, place, plans)
            plans = plans.flatten(1).unflatten(1, (plans.shape[1] * self.agent.model.block, -1))
            terms = {name: one[place].item() for name, one in decision.terms.items()}
            safe = decision.plan is None or bool(decision.plan.safe[place])
            levels, where = self._levels(decision, place), self._where(nearest)
            chosen = _chosen(decision, place)
            self.thoughts.append(
                Thought(
                    len(self.frames), self.bank[nearest], distance, plans, terms, safe, chosen, levels, where, branches
                )
            )
        self.seen = decision
        self.frames.append(frame.clone())

    def _nearest(self, states: Tensor, level: int = 1) -> tuple[Tensor, Tensor]:
        """Distances to the nearest recorded states of a level, and which frames these are; `(L, N, D)` -> `(L,)`."""
        return torch.cdist(states.flatten(1), self.states[level - 1].flatten(1)).min(1)

    def _where(self, frames: Tensor) -> Tensor | None:
        return None if self.places is None else self.places[frames]

    def _branches(self, decision: Decision, place: int, plans: Tensor) -> Tensor | None:
        """Where the plans that were weighed would lead, `(K, L, 2)`; where chance has a say, the best one alone."""
        if self.places is None:
            return None
        state = decision.state[place, None].expand(len(plans), -1, -1)
        with torch.no_grad():
            if isinstance(self.agent.model, Stochastic):
                chance = spread(self.agent.model.chances, plans.shape[1])  # (1, S, L, chances)
                states = futures(self.agent.model, state[:1], plans[:1], chance).states[0]  # (S, L, N, D)
            else:
                states = imagine(self.agent.model, state, plans).states
        return self._where(self._nearest(states.flatten(0, 1))[1]).unflatten(0, states.shape[:2])

    def _levels(self, decision: Decision, place: int) -> tuple[Level, ...]:
        """What the upper levels thought."""
        found = []
        for number, thought in enumerate(() if decision.plan is None else decision.plan.thoughts, start=2):
            model, steps = self.uppers[number - 2].model, int(thought.steps[place])
            distance, nearest = self._nearest(thought.states[place, :steps], number)
            branches = None
            if thought.branches is not None and self.places is not None and steps:
                plans = thought.branches[place, :, :steps]
                plans = plans[plans.isfinite().all(2).all(1)]
                here = decision.state[place, None, None]  # (1, 1, N, D)
                for level in self.uppers[: number - 1]:
                    here = level.lift(here)
                with torch.no_grad():
                    ahead = imagine(model, here[:, 0].expand(len(plans), -1, -1), plans).states
                branches = self._where(self._nearest(ahead.flatten(0, 1), number)[1]).unflatten(0, ahead.shape[:2])
            found.append(Level(number, model.block, self.bank[nearest], distance, self._where(nearest), branches))
        return tuple(found)

    def end(self, frame: Tensor) -> None:
        """Call it with what the last action led to, `(C, H, W)`."""
        self.frames.append(frame.clone())

    def episode(self) -> Episode:
        """What was watched so far.

        Raises:
            UserError: nothing was.
        """
        if not self.thoughts:
            raise UserError("no decision was watched: call `watch` after each `act`")
        return Episode(torch.stack(self.frames), self.goal, self.agent.model.block, self.thoughts)


def _chosen(decision: Decision, place: int) -> Chosen | None:
    """What the configurator said of one environment."""
    choice, seen = decision.choice, decision.situation
    if choice is None or seen is None:
        return None
    mode, why = (int(one[place]) for one in choice)
    return Chosen(mode, why, *(float(one[place]) for one in (seen.cost, seen.gain, seen.surprise)))

"""What went on in an agent during one episode, as plain tensors that `report/episode.py` draws."""

from typing import NamedTuple

import torch
from torch import Tensor

from jepa_pretrain.agent.agent import Agent, Decision
from jepa_pretrain.contracts import UserError


class Chosen(NamedTuple):
    """How a configurator had it act, and what it saw."""

    mode: int  # index of `configurator.MODES`
    why: int  # index of `configurator.WHY`
    cost: float
    gain: float
    surprise: float


class Thought(NamedTuple):
    """One decision, and when it was made."""

    step: int  # of the environment
    imagined: Tensor  # (L, C, H, W) uint8: of the recorded frames those nearest to the imagined states
    distance: Tensor  # (L,) how far the imagined states lie from the states of these frames
    candidates: Tensor  # (K, L * block, a) plans it weighed last, the best first, as actions of the environment
    terms: dict[str, float]  # every term of the cost, of what it saw
    safe: bool  # its plan keeps all hard guardrails
    chosen: Chosen | None = None


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
        bank: recorded frames `(M, C, H, W)` uint8, in which imagined states are looked up.
        row: which environment.
        batch: frames of the bank that are encoded at once.

    Raises:
        UserError: an empty bank, or frames of another size than the goal.
    """

    def __init__(self, agent: Agent, goal: Tensor, bank: Tensor, row: int = 0, batch: int = 256) -> None:
        if not len(bank) or bank.shape[1:] != goal.shape:
            raise UserError(f"imagined states are shown by frames {tuple(goal.shape)}, found {tuple(bank.shape)}")
        agent.watched = True
        self.agent, self.goal, self.bank, self.row = agent, goal, bank, row
        with torch.no_grad():
            self.states = torch.cat([agent.model.encode(one) for one in bank.split(batch)]).flatten(1)  # (M, N D)
        self.frames: list[Tensor] = []
        self.thoughts: list[Thought] = []
        self.seen = agent.last

    def watch(self, frame: Tensor) -> None:
        """Call it after each `agent.act`, with the frame that the agent was shown, `(C, H, W)`."""
        decision = self.agent.last
        if decision is not None and decision is not self.seen and (decision.rows == self.row).any():
            place = int((decision.rows == self.row).nonzero()[0])
            distance, nearest = torch.cdist(decision.states[place].flatten(1), self.states).min(1)  # (L,)
            plans = decision.action[place, None, None] if decision.plan is None else decision.plan.candidates[place]
            plans = plans.flatten(1).unflatten(1, (plans.shape[1] * self.agent.model.block, -1))
            terms = {name: one[place].item() for name, one in decision.terms.items()}
            safe = decision.plan is None or bool(decision.plan.safe[place])
            chosen = _chosen(decision, place)
            self.thoughts.append(Thought(len(self.frames), self.bank[nearest], distance, plans, terms, safe, chosen))
        self.seen = decision
        self.frames.append(frame.clone())

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

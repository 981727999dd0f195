"""Learning from surprise: where the world parts from what was predicted, and only there, the world model is adjusted.

A person whose oars are swapped does not learn anew what a lake is. So a surprise is met in three steps: is it a world
that was known before? What were the motors changed by (a linear map of the actions: few numbers, few observations)?
Then the dynamics are trained on what happened, mixed with recordings whose actions are translated by that map, so that
what the recordings know of walls is not forgotten. Old dynamics are kept: back in the old world, they are recognised.
"""

import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jepa_pretrain.agent.actor import Decides, idle
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.surprise import Expecting, Transitions, Usual, energy, error_of, predicted
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import Continuous, WorldModel
from jepa_pretrain.contracts import UserError


class Parted(NamedTuple):
    """What was expected and what came, of K blocks of actions."""

    state: Tensor  # (K, N, D)
    action: Tensor  # (K, A)
    expected: Tensor  # (K, N, D)
    after: Tensor  # (K, N, D)
    promised: Tensor  # (K,) cost of what was expected
    paid: Tensor  # (K,) cost of what came
    error: Tensor  # (K,)


@dataclass(frozen=True)
class Settings:
    """When and how to adjust.

    Args:
        window: last blocks, of all environments together, by which surprise is judged.
        high: usual quantile of the errors; half of the window above it is a surprise.
        steps: of AdamW each time that a window is surprising.
        batch: observations per step, and as many recorded ones.
        rate: learning rate.
        most: times in a row; a surprise that stays is then taken as usual.
        kept: blocks that are remembered.
        translate: fit how the actions were changed, and translate the recordings.

    Raises:
        UserError: a window below 8, or a quantile outside 0.5..1.
    """

    window: int = 64
    high: float = 0.95
    steps: int = 150
    batch: int = 64
    rate: float = 5e-4
    most: int = 12
    kept: int = 4096
    translate: bool = True

    def __post_init__(self) -> None:
        if self.window < 8 or not 0.5 <= self.high < 1:
            raise UserError(f"learning from surprise needs a window of 8 or more and high in .5 to 1, found {self}")


@dataclass
class Told:
    """What learning from surprise did."""

    blocks: int = 0  # that were compared
    surprises: int = 0
    updates: int = 0  # steps of the optimiser
    recognised: int = 0  # times that an old dynamics was taken up again
    given_up: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def note(self, what: str, **numbers: float) -> None:
        """One line of what happened, at the present block."""
        self.events.append({"block": self.blocks, "what": what} | numbers)


class Adjusting:
    """Watches an actor, and adjusts the world model that it plans with; acts as the actor does.

    Args:
        decides: acts.
        model: predicts; the actor's own.
        parts: what may be trained of it: the dynamics, of each member of an ensemble.
        cost: judges; what it promised and what was paid is remembered.
        usual: errors on recordings.
        recordings: are replayed.
        settings: when and how.
        seed: of the batches.

    Raises:
        UserError: recordings that do not fit the model.
    """

    def __init__(
        self,
        decides: Decides,
        model: WorldModel,
        parts: list[nn.Module],
        cost: Cost,
        usual: Usual,
        recordings: Transitions,
        settings: Settings | None = None,
        seed: int = 0,
    ) -> None:
        if recordings.action.shape[1] != model.action.width or recordings.state.shape[2] != model.width:
            raise UserError("these recordings do not fit the agent: other actions, or states of another width")
        self.decides, self.model, self.cost, self.usual, self.recordings = decides, model, cost, usual, recordings
        self.parts, self.settings = nn.ModuleList(parts), settings or Settings()
        self.generator = torch.Generator().manual_seed(seed)
        self.told, self.expecting = Told(), Expecting()
        self.memory: Parted | None = None
        self.window = torch.zeros(0)
        self.known = [self._weights()]  # of every dynamics that was ever usual
        self.limit = float(usual.errors[round(self.settings.high * 100)])
        self.since = 0  # blocks remembered since the present surprise began; 0 for none
        self.bursts = 0

    def begin(self, environments: int) -> None:
        """New episodes everywhere; what was learned stays."""
        self.expecting.forget()
        self.decides.begin(environments)

    def forget(self, rows: Tensor) -> None:
        """New episodes, or goals, of environments `(B,)`."""
        self.expecting.forget(rows)
        self.decides.forget(rows)

    def act(self, state: Tensor, task: Task, rows: Tensor | None = None) -> Tensor:
        """Compare, adjust if need be, then act; arguments as those of the actor."""
        rows = torch.arange(len(state)) if rows is None else rows
        self._settle(state, task, rows)
        if len(self.window) >= self.settings.window:
            self._judge()
        action = self.decides.act(state, task, rows)
        self.expecting.expect(rows, state, action, predicted(self.model, state, action))
        return action

    def _settle(self, state: Tensor, task: Task, rows: Tensor) -> None:
        """Remember what was expected beside what came."""
        settled = self.expecting.settle(rows, state)
        if settled is None:
            return
        own, after = task.of(settled.rows), state[settled.rows]
        promised, paid = energy(self.cost, settled.expected, own), energy(self.cost, after, own)
        fresh = Parted(settled.state, settled.action, settled.expected, after, promised, paid, settled.error)
        kept = fresh if self.memory is None else Parted(*map(torch.cat, zip(self.memory, fresh, strict=True)))
        self.memory = Parted(*(one[-self.settings.kept :] for one in kept))
        self.window = torch.cat([self.window, settled.error])[-self.settings.window :]
        self.told.blocks += len(fresh.error)
        self.since += len(fresh.error) if self.since else 0

    def _judge(self) -> None:
        """Surprise, or its end."""
        high = float(self.window.median())
        if high <= self.limit:
            if self.since:
                self.known.append(self._weights())
                self.told.note("usual again", error=high)
            self.since = self.bursts = 0
            return
        if not self.since:
            self.told.surprises += 1
            self.since = len(self.window)
        if self.bursts >= self.settings.most:
            self.told.given_up += 1
            self.told.note("given up", error=high)
            self.limit, self.since, self.bursts = 1.5 * high, 0, 0
            return
        if not self.bursts and self._recognise():
            return
        self._learn(self._surprising())
        self.bursts += 1
        self.window = torch.zeros(0)

    def _surprising(self) -> Transitions:
        """What happened since the surprise began; of the window before, what was surprising itself."""
        found = Parted(*(one[-self.since :] for one in self.memory))
        new = torch.ones(len(found.error), dtype=torch.bool)
        new[: self.settings.window] = found.error[: self.settings.window] > self.limit
        return Transitions(found.state[new], found.action[new], found.after[new])

    def _recognise(self) -> bool:
        """Take up a dynamics that was known before, if what happens is usual for it."""
        seen, present, found = self._surprising(), self._weights(), []
        for weights in self.known:
            self._take(weights)
            found.append(float(error_of(predicted(self.model, seen.state, seen.action), seen.after).median()))
        best = min(range(len(found)), key=found.__getitem__)
        if found[best] > self.limit:
            self._take(present)
            return False
        self._take(self.known[best])
        self.told.recognised += 1
        self.told.note("recognised", error=found[best])
        self.since, self.window = 0, torch.zeros(0)
        return True

    @torch.enable_grad()
    def _learn(self, seen: Transitions) -> None:
        """Train the dynamics on what happened, and on recordings as they would be in the new world."""
        replayed = self.recordings
        if self.settings.translate and isinstance(self.model.action, Continuous):
            replayed = translated(self.recordings, self._changed(seen), self.model)
        self.parts.requires_grad_(True)
        optimiser = torch.optim.AdamW(self.parts.parameters(), lr=self.settings.rate, weight_decay=1e-5)
        for _ in range(self.settings.steps):
            loss = sum(self._loss(known) for known in (seen, replayed) if len(known.state))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.parts.parameters(), 1.0)
            optimiser.step()
        self.parts.requires_grad_(False)
        self.told.updates += self.settings.steps
        self.told.note(
            "adjusted", observations=len(seen.state), replayed=len(replayed.state), loss=float(loss.detach())
        )

    def _loss(self, known: Transitions) -> Tensor:
        """Squared error of a step, over the median distance of states a step apart, `()`."""
        chosen = torch.randint(len(known.state), (self.settings.batch,), generator=self.generator)
        after = self.model.rollout(known.state[chosen], known.action[chosen, None])[:, 0]
        return error_of(after, known.after[chosen]).mean() / self.usual.distance

    def _changed(self, seen: Transitions) -> Tensor:
        """The map of actions that explains most of what happened, under the first dynamics, `(a, a)`."""
        present = self._weights()
        self._take(self.known[0])
        found = motors(self.model, seen)
        self._take(present)
        self.told.note(
            "motors", **{f"m{i}{j}": round(float(v), 3) for i, r in enumerate(found) for j, v in enumerate(r)}
        )
        return found

    def _weights(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.parts.state_dict())

    def _take(self, weights: dict[str, Tensor]) -> None:
        self.parts.load_state_dict(weights)


def motors(model: WorldModel, seen: Transitions, steps: int = 100, rate: float = 0.1) -> Tensor:
    """The linear map M for which `Pred(s, M a)` fits best what happened, by Adam; M = 1 is no change.

    Args:
        model: predicts; its weights stay.
        seen: what happened.
        steps: of Adam.
        rate: learning rate.

    Returns:
        `(a, a)`, of one action of the environment as a column.
    """
    width = model.action.width // model.block
    found = torch.eye(width).requires_grad_()
    optimiser = torch.optim.Adam([found], lr=rate)
    for _ in range(steps):
        action = (seen.action.unflatten(1, (model.block, width)) @ found.T).flatten(1)
        off = error_of(model.rollout(seen.state, action[:, None])[:, 0], seen.after)
        loss = off.clamp(max=4 * float(off.detach().median())).mean()  # what walls stopped counts little
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return found.detach()


def translated(recordings: Transitions, found: Tensor, model: WorldModel) -> Transitions:
    """Recordings with the actions that would have done the same with changed motors; none beyond what can be done.

    Args:
        recordings: of the old world.
        found: `(a, a)`, what `motors` gave; where it cannot be undone, nothing is left.
        model: its actions' bounds.
    """
    width = len(found)
    if float(torch.linalg.svdvals(found).min()) < 0.1:
        return Transitions(*(one[:0] for one in recordings))
    action = (recordings.action.unflatten(1, (model.block, width)) @ torch.linalg.inv(found).T).flatten(1)
    middle = idle(model.action)
    can = ((action - middle).abs() <= 1.05 * (model.action.high - middle)).all(1)
    return Transitions(recordings.state[can], action[can], recordings.after[can])

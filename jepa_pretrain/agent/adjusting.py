"""Learning from surprise: where the world parts from what was predicted, and only there, the world model is adjusted.

A person whose oars are swapped does not learn anew what a lake is. First some actions at random: what do they do now?
Is it a world that was known before? Or else, how were the motors changed (a linear map of the actions: few numbers)?
Then the dynamics are trained on what happened, mixed with recordings whose actions are translated by that map, so that
what the recordings know of walls is not forgotten. Old dynamics are kept: back in the old world, they are recognised.
"""

import copy

import torch
from torch import Tensor, nn

from jepa_pretrain.agent.actor import Decides, Policy
from jepa_pretrain.agent.adjustments import Parted, Settings, Told
from jepa_pretrain.agent.cost import Cost
from jepa_pretrain.agent.motors import motors, translated, undone
from jepa_pretrain.agent.surprise import Expecting, Transitions, Usual, energy, error_of, predicted
from jepa_pretrain.agent.task import Task
from jepa_pretrain.agent.world_model import Continuous, WorldModel
from jepa_pretrain.contracts import UserError

MOVED = 0.25  # of the usual squared distance: what moved less was stopped by walls, and tells nothing of motors
SAME = 0.3  # motors that differ by less are no others
TELLING = 16  # blocks that moved, below which all have to tell


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
        policy: the actor's, if it has one; its actions are translated as those of the recordings are.

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
        policy: Policy | None = None,
    ) -> None:
        if recordings.action.shape[1] != model.action.width or recordings.state.shape[2] != model.width:
            raise UserError("these recordings do not fit the agent: other actions, or states of another width")
        self.decides, self.model, self.cost, self.usual, self.recordings = decides, model, cost, usual, recordings
        self.parts, self.settings = nn.ModuleList(parts), settings or Settings()
        self.generator = torch.Generator().manual_seed(seed)
        self.told, self.expecting = Told(), Expecting()
        self.memory: Parted | None = None
        self.window = torch.zeros(0)
        self.policy = policy
        self.current: int | None = 0  # which of them is in use; None where it was trained since
        self.limit, self.over = (float(usual.errors[round(at * 100)]) for at in (self.settings.high, self.settings.low))
        self.motors: Tensor | None = None  # what they were last found to be; None is as ever
        self.known = [(self._weights(), self.motors)]  # of every dynamics that was ever usual
        self.surprised = self.trying = False  # trying: acting at random, to learn what actions do now
        self.since = 0  # blocks remembered since the present surprise began
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
        action = self._tried(len(state)) if self.trying else self.decides.act(state, task, rows)
        self.expecting.expect(rows, state, action, predicted(self.model, state, action))
        return action

    def _tried(self, count: int) -> Tensor:
        """Actions at random, each held for a block: what they do tells most of changed motors, `(B, A)`."""
        space, block = self.model.action, self.model.block
        if not isinstance(space, Continuous):
            return space.choices[torch.randint(space.n, (count,), generator=self.generator)]
        low, high = (one[: len(one) // block] for one in space)
        return (low + (high - low) * torch.rand(count, len(low), generator=self.generator)).repeat(1, block)

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
        self.since += len(fresh.error) if self.surprised else 0

    def _judge(self) -> None:
        """Surprise, or its end."""
        high = float(self.window.median())
        if not self.surprised:
            if high > self.limit:
                self.told.surprises += 1
                self.told.note("surprised", error=high)
                self.surprised = self.trying = True
                self._renew(0)
        elif high <= self.over and self.bursts >= self.settings.least:
            self._keep()
            self._calm("usual again", high)
        elif self._recognise():
            self._calm("recognised", high)
        elif self.bursts >= self.settings.most:
            self._keep()
            self.told.given_up += 1
            self.limit, self.over = 1.5 * high, high
            self._calm("given up", high)
        else:
            self._learn(self._happened(self.since))
            self.bursts, self.trying = self.bursts + 1, False
            self._renew(self.since)

    def _keep(self) -> None:
        """The present dynamics, so that it is recognised another time."""
        self.known.append((self._weights(), self.motors))
        self.current = len(self.known) - 1

    def _renew(self, since: int) -> None:
        """Judge by what comes from now on."""
        self.window, self.since = torch.zeros(0), since

    def _calm(self, what: str, error: float) -> None:
        """The surprise is over."""
        self.told.note(what, error=error)
        self.surprised = self.trying = False
        self.bursts = 0
        self._renew(0)

    def _happened(self, count: int) -> Transitions:
        """The last blocks."""
        return Transitions(*(one[-count:] for one in (self.memory.state, self.memory.action, self.memory.after)))

    def _recognise(self) -> bool:
        """Take up another dynamics that was known before, if what happens is usual for it."""
        seen, present, found = self._happened(self.settings.window), self._weights(), {}
        for number, (weights, _) in enumerate(self.known):
            if number != self.current:
                self._take(weights)
                after = predicted(self.model, seen.state, seen.action)
                found[number] = float(error_of(after, seen.after).median())
        best = min(found, key=found.__getitem__, default=0)
        if not found or found[best] > self.over:
            self._take(present)
            return False
        weights, self.motors = self.known[best]
        self._take(weights)
        self._turn()
        self.current, self.told.recognised = best, self.told.recognised + 1
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
        self.current, self.told.updates = None, self.told.updates + self.settings.steps
        self.told.note(
            "adjusted", observations=len(seen.state), replayed=len(replayed.state), loss=float(loss.detach())
        )

    def _loss(self, known: Transitions) -> Tensor:
        """Squared error of a step, over the median distance of states a step apart, `()`."""
        chosen = torch.randint(len(known.state), (self.settings.batch,), generator=self.generator)
        after = self.model.rollout(known.state[chosen], known.action[chosen, None])[:, 0]
        return error_of(after, known.after[chosen]).mean() / self.usual.distance

    def _changed(self, seen: Transitions) -> Tensor:
        """The map of actions that explains most of what was tried, under the first dynamics, `(a, a)`.

        What is seen later is no good for it: a planner that is wrong pushes into walls.
        """
        if not self.trying and self.motors is not None:
            return self.motors
        present, before = self._weights(), self.motors
        self._take(self.known[0][0])
        went = (seen.after - seen.state).square().mean((1, 2)) > MOVED * self.usual.distance
        telling = Transitions(*(one[went] for one in seen)) if went.sum() >= TELLING else seen
        self.motors = motors(self.model, telling, float(self.usual.errors[50]))
        if before is not None and (self.motors - before).abs().max() < SAME:
            self._take(present)  # no other motors, so what was learned with them is good
        self._turn()
        rows = enumerate(self.motors.tolist())
        self.told.note("motors", **{f"m{i}{j}": round(one, 3) for i, row in rows for j, one in enumerate(row)})
        return self.motors

    def _turn(self) -> None:
        """The policy does with the present motors what it did with those that it was distilled for."""
        if self.policy is not None:
            self.policy.turn(None if self.motors is None else undone(self.motors))

    def _weights(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.parts.state_dict())

    def _take(self, weights: dict[str, Tensor]) -> None:
        self.parts.load_state_dict(weights)

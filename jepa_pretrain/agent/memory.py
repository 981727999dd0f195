"""Short-term memory: what happened when, and what it cost (LeCun 2022, section 3.1).

It is asked by likeness (which moments looked like this one?) and by delay (what did it cost, so much later?), and so
feeds the critic.
"""

from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from jepa_pretrain.contracts import UserError


class Moment(NamedTuple):
    """One decision in each of E environments."""

    time: Tensor  # (E,) int64, decisions since the episode began; 0 begins a new one
    state: Tensor  # (E, N, D)
    action: Tensor  # (E, A) in the model's units
    energy: Tensor  # (E,) weighted intrinsic cost of the state


class Recalled(NamedTuple):
    """The moments most like a query, the most alike first."""

    moments: Moment  # each field (B, k, ...)
    likeness: Tensor  # (B, k) cosine, 1 for the same state


class Memory:
    """A ring: when it is full, the oldest moments are overwritten.

    Args:
        capacity: moments kept of each environment.

    Raises:
        UserError: a capacity below 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise UserError(f"a memory holds one moment or more, found capacity {capacity}")
        self.capacity, self.written = capacity, 0
        self.ring: Moment | None = None  # fields (capacity, E, ...)

    def __len__(self) -> int:
        """Moments held, of all environments together."""
        return 0 if self.ring is None else min(self.written, self.capacity) * self.ring.time.shape[1]

    def write(self, moment: Moment) -> None:
        """Remember one moment of every environment.

        Args:
            moment: of as many environments, and of the same shapes, as those written before; detached here.

        Raises:
            UserError: other shapes, or values that are not finite.
        """
        if self.ring is None:
            self.ring = Moment(*(one.new_zeros(self.capacity, *one.shape) for one in moment))
        for name, one, kept in zip(Moment._fields, moment, self.ring, strict=True):
            if one.shape != kept.shape[1:]:
                raise UserError(
                    f"this memory holds a {name} of shape {tuple(kept.shape[1:])}, found {tuple(one.shape)}"
                )
            if one.is_floating_point() and not one.isfinite().all():
                raise UserError(f"a moment's {name} holds values that are not finite; it is not remembered")
        place = self.written % self.capacity
        for one, kept in zip(moment, self.ring, strict=True):
            kept[place] = one.detach()
        self.written += 1

    def recall(self, query: Tensor, k: int) -> Recalled:
        """The `k` moments of all environments whose states are most like a query's; fewer where fewer are held.

        Args:
            query: `(B, N, D)`.
            k: how many.

        Raises:
            UserError: nothing was written yet, or states of another shape.
        """
        held = self._held()
        keys = held.state.flatten(0, 1).flatten(1)  # (moments, N D)
        if query.flatten(1).shape[1] != keys.shape[1]:
            shape = tuple(held.state.shape[2:])
            raise UserError(f"this memory holds states of shape {shape}, asked for {tuple(query.shape[1:])}")
        likeness = F.normalize(query.flatten(1), dim=1) @ F.normalize(keys, dim=1).T  # (B, moments)
        found, index = likeness.topk(min(k, len(keys)), dim=1)
        return Recalled(Moment(*(one.flatten(0, 1)[index] for one in held)), found)

    def pairs(self, delay: int) -> tuple[Tensor, Tensor]:
        """All states, and the energy `delay` decisions later in the same episode: `(P, N, D)`, `(P,)`.

        Args:
            delay: 0 or more.
        """
        states, energies, _ = self.windows(delay)
        return states, energies[:, -1]

    def windows(self, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """All states that `length` more moments of their episode followed.

        Args:
            length: 0 or more.

        Returns:
            The states `(P, N, D)`, the energies of their own and of the following moments `(P, length + 1)`, and the
            last states `(P, N, D)`.

        Raises:
            UserError: nothing was written yet, or no episode is so long.
        """
        held, steps = self._held(), min(self.written, self.capacity)
        if length < 0 or length >= steps:
            raise UserError(f"no two of the {steps} moments of this memory lie {length} apart")
        count = steps - length
        same = held.time[length:] == held.time[:count] + length  # (count, E): no new episode began in between
        if not same.any():
            raise UserError(f"no episode of this memory has moments that lie {length} apart")
        energies = held.energy.unfold(0, length + 1, 1)  # (count, E, length + 1)
        return held.state[:count][same], energies[same], held.state[length:][same]

    def episodes(self) -> list[Tensor]:
        """The states of each episode, `(T, N, D)` each."""
        held, found = self._held(), []
        for column in range(held.time.shape[1]):
            starts = (held.time[1:, column] != held.time[:-1, column] + 1).nonzero()[:, 0] + 1
            found += held.state[:, column].tensor_split(starts.tolist())
        return found

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain numbers and tensors."""
        fields = {} if self.ring is None else self.ring._asdict()
        return {"capacity": self.capacity, "written": self.written, **fields}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.capacity, self.written = int(state["capacity"]), int(state["written"])
        self.ring = Moment(*(state[name].clone() for name in Moment._fields)) if "state" in state else None

    def _held(self) -> Moment:
        """What is held, oldest first, fields `(steps, E, ...)`."""
        if self.ring is None:
            raise UserError("this memory is empty: let the agent act first")
        if self.written <= self.capacity:
            return Moment(*(one[: self.written] for one in self.ring))
        return Moment(*(one.roll(-(self.written % self.capacity), 0) for one in self.ring))

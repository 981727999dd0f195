"""Which sample is read when: a pure function of (seed, epoch, position), independent of ranks and workers.

Training: the shards are permuted, taken in windows of a few shards, and the samples of a window are permuted, so that
one window's tars are open at a time and no list of all samples ever exists. A global batch takes the
`batch_size * world` positions from its first one on; a rank takes its slice. Evaluation: the shards in order.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from torch.utils.data import DistributedSampler

from jepa_pretrain.contracts import UserError
from jepa_pretrain.seeds import seed_of


class Draw(NamedTuple):
    """One batch to make, in pass `epoch` over the data."""

    epoch: int
    first: int  # training: the position where the global batch begins; evaluation: the number of the batch


class Slots(NamedTuple):
    """Where the samples of a piece of the order lie."""

    position: np.ndarray  # (S,) place in the epoch's global order
    shard: np.ndarray  # (S,) shard number
    sample: np.ndarray  # (S,) sample number inside its shard


def permutation(count: int, *parts: int) -> np.ndarray:
    """A random permutation of `count` numbers that depends on `parts` only.

    Raw generator output is sorted, because numpy keeps raw streams (not `permutation`) equal across its versions.

    Args:
        count: How many numbers to permute.
        parts: Whole numbers that name the permutation, such as seed, epoch and window.
    """
    return np.argsort(np.random.PCG64(seed_of(*parts)).random_raw(count), kind="stable")


class Shuffled:
    """The training order: every rank has the same number of full batches; the tail of an epoch is dropped.

    Args:
        sizes: Samples per shard.
        batch_size: Samples per rank and step.
        world: Number of ranks.
        rank: This rank, in `[0, world)`.
        seed: Names the order.
        window: How many shards are mixed with each other; larger mixes better, smaller reads more locally.
    """

    def __init__(
        self, sizes: list[int], batch_size: int, world: int = 1, rank: int = 0, seed: int = 0, window: int = 16
    ):
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.batch_size, self.world, self.rank, self.seed, self.window = batch_size, world, rank, seed, window
        self.total, self.group = int(self.sizes.sum()), batch_size * world
        if batch_size < 1 or window < 1:
            raise UserError(f"batch_size ({batch_size}) and window ({window}) must be at least 1")
        if self.total < self.group:
            raise UserError(
                f"the training set has {self.total} samples, one global batch needs {self.group} "
                f"(batch_size {batch_size} x {world} ranks): lower batch_size"
            )
        self.draws = range(0, self.total - self.group + 1, self.group)  # `Draw.first` of a whole pass
        self._layout = lru_cache(maxsize=2)(self._draw_layout)
        self._mix = lru_cache(maxsize=3)(self._draw_mix)

    def __getstate__(self) -> dict:
        """Caches stay behind when the order travels to a worker."""
        return {key: value for key, value in vars(self).items() if key not in ("_layout", "_mix")}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._layout = lru_cache(maxsize=2)(self._draw_layout)
        self._mix = lru_cache(maxsize=3)(self._draw_mix)

    def slots(self, draw: Draw) -> Slots:
        """The whole global batch, all ranks together (S = batch_size * world)."""
        return self.at(draw.epoch, np.arange(draw.first, draw.first + self.group))

    def mine(self, draw: Draw) -> range:
        """Which rows of `slots` belong to this rank."""
        return range(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)

    def at(self, epoch: int, position: np.ndarray) -> Slots:
        """The samples at given positions (S,) of an epoch's global order."""
        shards, starts = self._layout(epoch)
        windows = np.searchsorted(starts, position, side="right") - 1
        shard, sample = np.empty_like(position), np.empty_like(position)
        for window in np.unique(windows):
            here = windows == window
            shard[here], sample[here] = self._place(epoch, int(window), shards, position[here] - starts[window])
        return Slots(position, shard, sample)

    def _place(self, epoch: int, window: int, shards: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shard and sample numbers at offsets (S,) inside a window."""
        members = shards[window * self.window : (window + 1) * self.window]
        ends = np.cumsum(self.sizes[members])
        mixed = self._mix(epoch, window, int(ends[-1]))[offset]
        member = np.searchsorted(ends, mixed, side="right")
        return members[member], mixed - (ends - self.sizes[members])[member]

    def _draw_layout(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Permuted shard numbers, and the position at which each window of them starts."""
        shards = permutation(len(self.sizes), self.seed, epoch)
        sums = np.add.reduceat(self.sizes[shards], np.arange(0, len(shards), self.window))
        return shards, np.cumsum(sums) - sums

    def _draw_mix(self, epoch: int, window: int, count: int) -> np.ndarray:
        return permutation(count, self.seed, epoch, window)


class InOrder:
    """The evaluation order: each sample exactly once over all ranks, each rank the same number of steps.

    The sizes of any two batches differ by one at most, so that no rank ever waits for another.

    Args:
        sizes: Samples per shard.
        batch_size: Samples per rank and step, at most (one more where there are fewer than `world` left to share).
        world: Number of ranks.
        rank: This rank, in `[0, world)`.
    """

    def __init__(self, sizes: list[int], batch_size: int, world: int = 1, rank: int = 0):
        if batch_size < 1:
            raise UserError(f"batch_size ({batch_size}) must be at least 1")
        self.ends = np.cumsum(np.asarray(sizes, dtype=np.int64))
        self.total, self.world, self.rank, self.seed = int(self.ends[-1]) if len(sizes) else 0, world, rank, 0
        if self.total < world:
            raise UserError(f"the evaluation set has {self.total} samples for {world} ranks: use fewer devices")
        self.draws = range(min(-(-self.total // (batch_size * world)), self.total // world))  # `Draw.first` of a pass

    def slots(self, draw: Draw) -> Slots:
        """This rank's samples of a batch."""
        pieces, piece = len(self.draws) * self.world, draw.first * self.world + self.rank
        position = np.arange(piece * self.total // pieces, (piece + 1) * self.total // pieces)
        shard = np.searchsorted(self.ends, position, side="right")
        starts = np.concatenate([[0], self.ends[:-1]])
        return Slots(position, shard, position - starts[shard])

    def mine(self, draw: Draw) -> range:
        """All rows of `slots`: ranks share nothing here."""
        return range(len(self.slots(draw).position))


class Steps(DistributedSampler[Draw]):
    """Names the batches of one pass after the other; every new iteration is the next epoch.

    A `DistributedSampler` by name, which tells Lightning that samples are already split over the ranks (by the order).

    Args:
        draws: `Draw.first` of every batch of a pass.
        epoch: The epoch of the first iteration.
        start: The position where the first iteration begins; what lies before is skipped without reading it. It need
            not be the beginning of a batch: a run that goes on with another batch size begins where it stood.
        repeat: Stay in the same epoch for ever (evaluation).
    """

    def __init__(self, draws: range, epoch: int = 0, start: int = 0, repeat: bool = False):
        self.draws, self.repeat = draws, repeat
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return len(self.draws)

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration run through `epoch`; a start given for that same epoch stays."""
        if epoch != self.epoch and not self.repeat:
            self.epoch, self.start = epoch, 0

    def __iter__(self) -> Iterator[Draw]:
        epoch, start = self.epoch, self.start
        self.epoch, self.start = (epoch if self.repeat else epoch + 1), 0
        for first in range(start, self.draws.stop, self.draws.step):
            yield Draw(epoch, first)

"""Samples to batches: a dataset whose item is a whole batch, so that nothing depends on the number of workers."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from jepa_pretrain.contracts import Batch, Grid, Masker, Masks, UserError
from jepa_pretrain.data.index import Index
from jepa_pretrain.data.order import Draw, InOrder, Shuffled, Slots, seed_of
from jepa_pretrain.data.parcel import Outbox, Parcel
from jepa_pretrain.data.samples import Sample, Samples
from jepa_pretrain.data.stack import Stack, plain_memory
from jepa_pretrain.data.views import View

MASKS = -1  # stands where a sample's position stands, in the seed of a step's masks
TOGETHER = 8  # pictures that are decoded, viewed and copied in turn: enough to amortise, few enough for the cache


class Pictures(Dataset[Batch]):
    """Makes the batch that a `Draw` names; in a worker, the `Parcel` that becomes this batch.

    Args:
        index: The shards.
        order: Which sample comes when.
        views: What the method sees of each picture, in order.
        masker: Draws masks for the global batch, of which this rank keeps its rows; None for no masks.
        grid: Token grid of the masks.
        max_broken: Share of broken samples past which reading stops; ten are needed at least.
    """

    def __init__(
        self,
        index: Index,
        order: Shuffled | InOrder,
        views: list[View],
        masker: Masker | None = None,
        grid: Grid | None = None,
        max_broken: float = 0.01,
    ):
        if not views:
            raise UserError("no views given: the loader needs at least one, e.g. RandomCrop")
        if masker is not None and grid is None:
            raise UserError("a masker needs the token grid of the encoder: give `grid`")
        self.order, self.views, self.masker, self.grid = order, list(views), masker, grid
        self.samples = Samples(index, max_broken, 2 * order.window if isinstance(order, Shuffled) else 2)
        self.outbox: Outbox | None = None  # given to a worker

    def __len__(self) -> int:
        return self.order.steps

    def __getitem__(self, draw: Draw) -> Batch | Parcel:
        state = torch.get_rng_state()
        slots, mine = self.order.slots(draw), self.order.mine(draw)
        stack = Stack(len(mine), self.outbox.take if self.outbox else plain_memory)
        labels: list[int] = []
        keys: list[str] = []
        for start in range(mine.start, mine.stop, TOGETHER):
            rows = range(start, min(start + TOGETHER, mine.stop))
            found = [(row, sample) for row in rows if (sample := self._filled(slots, row)) is not None]
            if found:
                seeds = [seed_of(self.order.seed, draw.epoch, int(slots.position[row])) for row, _ in found]
                stack.put(len(keys), self._views([sample.image for _, sample in found], seeds))
            labels += [sample.label for _, sample in found]
            keys += [sample.key for _, sample in found]
        if not keys:  # a whole evaluation batch was broken: no rows, of the right shape
            stack.put(0, self._views([torch.zeros(3, 64, 64, dtype=torch.uint8)], [0]))
        masks = self._masks(draw, len(slots.position), mine)
        torch.set_rng_state(state)
        batch = Batch(stack.views(len(keys)), masks, torch.tensor(labels, dtype=torch.int64), keys)
        return batch if self.outbox is None else Parcel(self.outbox, stack.layouts, len(mine), batch)

    def _filled(self, slots: Slots, row: int) -> Sample | None:
        """The sample of a row. In training a broken one gives way to the next of the same global batch."""
        count = len(slots.position)
        replace = isinstance(self.order, Shuffled)
        for offset in range(count if replace else 1):
            at = (row + offset) % count
            sample = self.samples.read(int(slots.shard[at]), int(slots.sample[at]))
            if sample is not None:
                return sample
        if replace:
            raise UserError(
                f"none of the {count} samples of a batch could be decoded; the latest: {self.samples.latest}"
            )
        return None

    def _views(self, images: list[Tensor], seeds: list[int]) -> list[list[Tensor]]:
        """Per view, what it makes of some pictures; a picture's randomness follows from its seed alone."""
        made: list[list[Tensor]] = [[] for _ in self.views]
        for image, seed in zip(images, seeds, strict=True):
            torch.default_generator.manual_seed(seed)
            for view, pictures in zip(self.views, made, strict=True):
                pictures.append(view(image))
        return made

    def _masks(self, draw: Draw, count: int, mine: range) -> list[Masks]:
        """Masks are drawn for the global batch, since their sizes agree over it; this rank keeps its rows."""
        if self.masker is None:
            return []
        rng = torch.Generator().manual_seed(seed_of(self.order.seed, draw.epoch, draw.step, MASKS))
        drawn = self.masker(count, self.grid, rng)
        return [Masks(*(part[mine.start : mine.stop].clone() for part in drawn))]

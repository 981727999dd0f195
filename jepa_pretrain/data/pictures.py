"""Samples to batches: a dataset whose item is a whole batch, so that nothing depends on the number of workers."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from jepa_pretrain.contracts import Batch, Grid, Masker, Masks, UserError
from jepa_pretrain.data.index import Index
from jepa_pretrain.data.order import Draw, InOrder, Shuffled, Slots
from jepa_pretrain.data.parcel import Outbox, Parcel
from jepa_pretrain.data.samples import Sample, Samples
from jepa_pretrain.data.spans import SINGLE, Span, Taken, even
from jepa_pretrain.data.stack import Stack, plain_memory
from jepa_pretrain.data.views import View
from jepa_pretrain.seeds import seed_of

MASKS = -1  # sets the seed of a batch's masks apart from that of its first sample
PLACE = -2  # and the place of a clip in its video from what the views draw
TOGETHER = 8  # clips that are decoded, viewed and copied in turn: enough to amortise, few enough for the cache


class Pictures(Dataset[Batch]):
    """Makes the batch that a `Draw` names; in a worker, the `Parcel` that becomes this batch.

    In training, all views see one clip of a video, at a random place; in evaluation, each its own, evenly spread.

    Args:
        index: The shards.
        order: Which sample comes when.
        views: What the method sees of each clip, in order.
        maskers: Each draws masks for the global batch, of which this rank keeps its rows; none for no masks.
        grid: Token grid of the masks.
        max_broken: Share of broken samples past which reading stops; ten are needed at least.
        span: What a clip covers of a video.
        labels: Whether labels are handed on; without, every one is -1.
    """

    def __init__(
        self,
        index: Index,
        order: Shuffled | InOrder,
        views: list[View],
        maskers: Sequence[Masker] = (),
        grid: Grid | None = None,
        max_broken: float = 0.01,
        span: Span = SINGLE,
        labels: bool = True,
    ):
        if not views:
            raise UserError("no views given: the loader needs at least one, e.g. RandomCrop")
        if maskers and grid is None:
            raise UserError("a masker needs the token grid of the encoder: give `grid`")
        self.index, self.order, self.views, self.maskers, self.grid = index, order, list(views), maskers, grid
        self.samples = Samples(index, max_broken, 2 * order.window if isinstance(order, Shuffled) else 2, span)
        self.labels = labels
        self.outbox: Outbox | None = None  # given to a worker

    def __len__(self) -> int:
        return len(self.order.draws)

    def __getitem__(self, draw: Draw) -> Batch | Parcel:
        state = torch.get_rng_state()
        slots, mine = self.order.slots(draw), self.order.mine(draw)
        count = len(mine)
        stack = Stack(count, self.outbox.take if self.outbox else plain_memory)
        samples = self._samples(slots, mine)
        seeds = [seed_of(self.order.seed, draw.epoch, place) for place in slots.position[mine].tolist()]
        whole: list[Sample] = []  # those that can be decoded
        acted: list[Tensor | None] = []
        for first in range(0, count, TOGETHER):
            group = slice(first, first + TOGETHER)
            found = self._decoded(slots, mine[group], samples[group], seeds[group])
            if found:
                stack.put(len(whole), self._views(found))
            whole += [sample for sample, _, _ in found]
            acted += [clips[0].actions for _, clips, _ in found]
        if not whole:  # a whole evaluation batch was broken: no rows, of the right shape
            nothing = Taken(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [0])
            stack.put(0, self._views([(samples[0], [nothing], 0)]))
        masks = self._masks(draw, len(slots.position), mine)
        torch.set_rng_state(state)
        label = torch.tensor([sample.label if self.labels else -1 for sample in whole], dtype=torch.int64)
        batch = Batch(stack.views(len(whole)), masks, label, [sample.key for sample in whole], _together(acted))
        return batch if self.outbox is None else Parcel(self.outbox, stack.layouts, count, batch)

    def _samples(self, slots: Slots, rows: range) -> list[Sample]:
        places = zip(slots.shard[rows].tolist(), slots.sample[rows].tolist(), strict=True)
        return [self.samples.read(shard, number) for shard, number in places]

    def _decoded(
        self, slots: Slots, rows: range, samples: list[Sample], seeds: list[int]
    ) -> list[tuple[Sample, list[Taken], int]]:
        """Samples with their clips and seeds, without the broken ones; in training others stand in for them."""
        found = []
        for row, sample, seed in zip(rows, samples, seeds, strict=True):
            places = self._places(seed)
            clips = self.samples.clips(sample, places)
            if clips is None and isinstance(self.order, Shuffled):
                sample, clips = self._stand_in(slots, row, places)
            if clips is not None:
                found.append((sample, clips, seed))
        return found

    def _places(self, seed: int) -> list[float]:
        """Where the clips lie that are taken out of a video."""
        return [seed_of(seed, PLACE) / 2**63] if isinstance(self.order, Shuffled) else even(len(self.views))

    def _stand_in(self, slots: Slots, row: int, places: list[float]) -> tuple[Sample, list[Taken]]:
        """The next sample of the same global batch that is not broken: the same one for any number of ranks."""
        count = len(slots.position)
        for offset in range(1, count):
            at = (row + offset) % count
            sample = self.samples.read(int(slots.shard[at]), int(slots.sample[at]))
            clips = self.samples.clips(sample, places)
            if clips is not None:
                return sample, clips
        raise UserError(f"none of the {count} samples of a batch could be decoded; the latest: {self.samples.latest}")

    def _views(self, found: list[tuple[Sample, list[Taken], int]]) -> list[list[Tensor]]:
        """Per view, what it makes of some clips (T, C, H, W); what it draws follows from a clip's seed alone."""
        made: list[list[Tensor]] = [[] for _ in self.views]
        for _, clips, seed in found:
            torch.default_generator.manual_seed(seed)
            seen = clips * (len(self.views) // len(clips))
            for view, clip, pictures in zip(self.views, seen, made, strict=True):
                pictures.append(view(clip.frames).expand(self.samples.span.frames, -1, -1, -1))  # holds a picture
        return made

    def _masks(self, draw: Draw, count: int, mine: range) -> list[Masks]:
        """Masks are drawn for the global batch, since their sizes agree over it; this rank keeps its rows."""
        rng = torch.Generator().manual_seed(seed_of(self.order.seed, draw.epoch, draw.first, MASKS))
        drawn = [masker(count, self.grid, rng) for masker in self.maskers]
        return [Masks(*(part[mine.start : mine.stop].clone() for part in masks)) for masks in drawn]


def _together(acted: list[Tensor | None]) -> Tensor | None:
    """The actions of a batch, (B, T, A), where its samples have any."""
    if all(one is None for one in acted):
        return None
    shapes = {None if one is None else tuple(one.shape) for one in acted}
    if len(shapes) > 1:
        raise UserError(f"some samples of a batch have other actions than others, or none ({shapes}): pack them apart")
    return torch.stack(acted)

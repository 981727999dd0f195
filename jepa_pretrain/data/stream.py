"""Shards to batches: a dataset whose item is a whole batch, so that nothing depends on the number of workers."""

import logging
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from jepa_pretrain.contracts import Batch, Grid, Masker, Masks, UserError
from jepa_pretrain.data.archive import Shard
from jepa_pretrain.data.images import EXTENSIONS, BrokenPicture, decode
from jepa_pretrain.data.index import Index, open_index
from jepa_pretrain.data.order import Draw, InOrder, Shuffled, Slots, Steps, seed_of
from jepa_pretrain.data.views import View

log = logging.getLogger(__name__)
TOLERATED = 9  # broken samples that are never too many, however few were read
MASKS = -1  # stands where a sample's position stands, in the seed of a step's masks


class Sample(NamedTuple):
    """One decoded sample."""

    image: Tensor  # (C, H, W) uint8
    label: int  # -1 where there is none
    key: str  # "shard/sample"


class Pictures(Dataset[Batch]):
    """Makes the batch that a `Draw` names.

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
        self.index, self.order, self.views = index, order, list(views)
        self.masker, self.grid, self.max_broken = masker, grid, max_broken
        self.seen, self.broken = 0, 0  # of this process
        self._reported: set[str] = set()
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._keep_open = 2 * order.window if isinstance(order, Shuffled) else 2

    def __len__(self) -> int:
        return self.order.steps

    def __getitem__(self, draw: Draw) -> Batch:
        state = torch.get_rng_state()
        slots, mine = self.order.slots(draw), self.order.mine(draw)
        stacks = [Stack(len(mine)) for _ in self.views]
        labels: list[int] = []
        keys: list[str] = []
        for row in mine:
            sample = self._filled(slots, row)
            if sample is None:
                continue
            torch.default_generator.manual_seed(seed_of(self.order.seed, draw.epoch, int(slots.position[row])))
            for view, stack in zip(self.views, stacks, strict=True):
                stack.put(len(keys), view(sample.image))
            labels.append(sample.label)
            keys.append(sample.key)
        if not keys:  # a whole evaluation batch was broken: no rows, of the right shape
            for view, stack in zip(self.views, stacks, strict=True):
                stack.put(0, view(torch.zeros(3, 64, 64, dtype=torch.uint8)))
        masks = self._masks(draw, len(slots.position), mine)
        torch.set_rng_state(state)
        views = [stack.rows(len(keys)) for stack in stacks]
        return Batch(views, masks, torch.tensor(labels, dtype=torch.int64), keys)

    def _filled(self, slots: Slots, row: int) -> Sample | None:
        """The sample of a row. In training a broken one gives way to the next of the same global batch."""
        count = len(slots.position)
        replace = isinstance(self.order, Shuffled)
        for offset in range(count if replace else 1):
            at = (row + offset) % count
            sample = self._sample(int(slots.shard[at]), int(slots.sample[at]))
            if sample is not None:
                return sample
        if replace:
            raise UserError(f"none of the {count} samples of a batch could be decoded; the latest: {self._latest}")
        return None

    def _sample(self, shard: int, number: int) -> Sample | None:
        """Reads and decodes one sample; None, with a log line the first time, where it is broken."""
        tar = self._shard(shard)
        self.seen += 1
        try:
            image = decode(_picture(tar, number))
        except BrokenPicture as error:
            self._count_broken(f"{tar.name}/{tar.keys[number]}", str(error))
            return None
        return Sample(image, self._label(tar, number), f"{tar.name}/{tar.keys[number]}")

    def _shard(self, number: int) -> Shard:
        """An open shard; the least recently used one is closed when there are too many."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if len(self._open) >= self._keep_open:
            self._open.popitem(last=False)
        self._open[number] = self.index.shards[number].open(self.index.cache)
        return self._open[number]

    def _label(self, tar: Shard, number: int) -> int:
        text = tar.read(number, "cls")
        if text is None:
            return -1
        where = f"shard {tar.name}, sample {tar.keys[number]}"
        try:
            label = int(text)
        except ValueError:
            raise UserError(f"{where}: the label {bytes(text[:20])!r} is not a whole number") from None
        if self.index.classes and label >= len(self.index.classes):
            raise UserError(f"{where}: label {label}, but only {len(self.index.classes)} classes are listed")
        return label

    def _count_broken(self, key: str, reason: str) -> None:
        self.broken += 1
        self._latest = f"{key} ({reason})"
        if key not in self._reported:
            self._reported.add(key)
            log.warning("broken sample skipped: %s", self._latest)
        if self.broken > TOLERATED and self.broken > self.max_broken * self.seen:
            raise UserError(
                f"{self.broken} of {self.seen} samples read are broken, more than max_broken = {self.max_broken:g} "
                f"allows; the latest: {self._latest}; `shards verify` lists them all"
            )

    def _masks(self, draw: Draw, count: int, mine: range) -> list[Masks]:
        """Masks are drawn for the global batch, since their sizes agree over it; this rank keeps its rows."""
        if self.masker is None:
            return []
        rng = torch.Generator().manual_seed(seed_of(self.order.seed, draw.epoch, draw.step, MASKS))
        drawn = self.masker(count, self.grid, rng)
        return [Masks(*(part[mine.start : mine.stop].clone() for part in drawn))]


class Stack:
    """The pictures of one view, put into one tensor as they come, while they are still in the processor's cache.

    The channels lie last in memory, as decoders leave them. In a worker the memory is shared with the training process
    from the beginning, which saves a copy on the way.

    Args:
        count: Number of rows.
    """

    def __init__(self, count: int):
        self.count, self.pixels = count, torch.empty(0, dtype=torch.uint8)  # (B, H, W, C)

    def put(self, row: int, image: Tensor) -> None:
        """Fills a row with a picture (C, H, W)."""
        pixels = image.permute(1, 2, 0)
        if self.pixels.ndim == 1:
            self.pixels = _empty((self.count, *pixels.shape))
        if pixels.shape != self.pixels.shape[1:]:
            sizes = f"{tuple(self.pixels.shape[1:])} and {tuple(pixels.shape)}"
            raise UserError(f"a view gives pictures of different sizes, such as {sizes}: views must crop or resize")
        self.pixels[row].copy_(pixels)

    def rows(self, count: int) -> Tensor:
        """The first rows, (B, C, T = 1, H, W)."""
        return self.pixels[:count].permute(0, 3, 1, 2).unsqueeze(2)


def _empty(shape: tuple[int, ...]) -> Tensor:
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # as torch's own collate function does
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


def _picture(tar: Shard, number: int) -> bytearray:
    data = tar.read_first(number, EXTENSIONS)
    if data is None:
        raise BrokenPicture("the sample has no picture member")
    return data


class Loader(DataLoader[Batch]):
    """A DataLoader of whole batches that knows where it is, and whose errors are one line.

    `state_dict` tells the epoch and the batches handed out, `load_state_dict` continues after them without reading.

    Args:
        pictures: Makes the batches.
        workers: Processes; 0 reads in this one.
        epoch: The epoch of the first iteration.
        start_step: Batches of that epoch to skip without reading them.
        pin: Put batches into page-locked memory, for a GPU.
    """

    def __init__(self, pictures: Pictures, workers: int, epoch: int = 0, start_step: int = 0, pin: bool = False):
        steps = Steps(pictures.order.steps, epoch, start_step, repeat=isinstance(pictures.order, InOrder))
        super().__init__(
            pictures,
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            pin_memory=pin,
            persistent_workers=workers > 0,
            prefetch_factor=2 if workers else None,
            collate_fn=_unchanged,
            worker_init_fn=_one_thread,
            generator=torch.Generator(),  # else every pass would draw from the generator that training uses
        )
        self._at = (epoch, start_step)

    def __iter__(self) -> Iterator[Batch]:
        epoch, start, message = self.sampler.epoch, self.sampler.start_step, None
        try:
            for done, batch in enumerate(super().__iter__(), start + 1):
                self._at = (epoch, done)
                yield batch
        except UserError as error:  # from a worker it comes wrapped in that worker's traceback
            message = str(error).strip().splitlines()[-1].split("UserError: ", 1)[-1]
            error.with_traceback(None)  # the frames in it would keep the workers waiting
        if message:  # raised out here for the same reason: the workers stop at once
            self._iterator = None
            raise UserError(message)

    def state_dict(self) -> dict[str, int]:
        """Where the iteration is: its epoch and how many of that epoch's batches were handed out."""
        epoch, step = self._at
        return {"epoch": epoch, "step": step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue behind the batches that `state` counts, at the next iteration."""
        epoch, step = state["epoch"], state["step"]
        self.sampler.epoch, self.sampler.start_step = (epoch + 1, 0) if step >= len(self.sampler) else (epoch, step)
        self._at = (epoch, step)


def _unchanged(batch: Batch) -> Batch:
    return batch


def _one_thread(worker: int) -> None:
    """Workers are the parallelism; more threads in each would fight over the same cores."""
    torch.set_num_threads(1)


def batches(
    source: str | list[str], view: View, batch_size: int = 256, workers: int = 2, cache: str | None = None
) -> Loader:
    """Every sample of some shards once, in order: what evaluations read.

    Args:
        source: A path, URL, brace or glob pattern, a folder, or a list of these.
        view: What the encoder sees of each picture, e.g. `CentreCrop(224)`.
        batch_size: Pictures per batch.
        workers: Processes that read and decode.
        cache: Folder for copies of compressed and remote shards.
    """
    index = open_index(source, cache)
    return Loader(Pictures(index, InOrder(index.sizes, batch_size), [view]), workers)

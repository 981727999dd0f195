"""The way of a batch from a worker to the training process: blocks of shared memory that are used again and again.

Fresh shared memory is dear: the kernel clears every page of it, and torch hands each tensor over through a socket. That
costs as much as decoding the pictures. Here a worker keeps a few blocks, one holds all views of a batch, and a message
names it by number. The first byte of a block says whether the batch in it still lives: the worker sets it, the training
process clears it when the last tensor on the block is gone. A block is never written while anything can still read it;
where all are in use, another is taken.
"""

import itertools
import os
import weakref

import numpy as np
import torch
from torch import Tensor

from jepa_pretrain.contracts import Batch, Masks
from jepa_pretrain.data.stack import Layout, views_in

HEADER = 64  # bytes in front of the pictures, the size of a cache line
KEPT = 8  # blocks that a worker keeps: two prefetched, those in training's hands, and some to spare
LONE = -1  # the number of a block that serves only once, since all others are in use

_inboxes: "weakref.WeakValueDictionary[int, Inbox]" = weakref.WeakValueDictionary()
_numbers = itertools.count()


class Outbox:
    """The worker's side: its blocks.

    Args:
        inbox: Number of the training process's side.
        worker: Number of this worker.
    """

    def __init__(self, inbox: int, worker: int):
        self.inbox, self.worker = inbox, worker
        self.blocks: list[Tensor] = []

    def take(self, size: int) -> Tensor:
        """Memory for `size` bytes that nobody uses; it counts as in use from now on."""
        number = next((n for n, one in enumerate(self.blocks) if len(one) >= HEADER + size and one[0] == 0), None)
        if number is not None:
            self.blocks[number][0] = 1
            self.address = (self.inbox, self.worker, number, None)
            return self.blocks[number][HEADER:]
        block = torch.ones(HEADER + size, dtype=torch.uint8).share_memory_()
        number = len(self.blocks) if len(self.blocks) < KEPT else LONE
        if number != LONE:
            self.blocks.append(block)
        self.address = (self.inbox, self.worker, number, block)  # of the memory given last
        return block[HEADER:]


class Inbox:
    """The training process's side: the blocks it was shown, by worker and number; a loader keeps it alive."""

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.blocks: dict[tuple[int, int], Tensor] = {}
        _inboxes[self.number] = self


class Parcel:
    """A batch in a worker. What comes out of the queue in the training process is a `Batch`.

    The small parts travel as bytes: for them that is quicker than shared tensors.

    Args:
        outbox: The worker's blocks; the latest that it gave holds the views.
        layouts: How the clips of each view lie in it.
        count: Rows that it has room for.
        batch: The batch itself.
    """

    def __init__(self, outbox: Outbox, layouts: list[Layout], count: int, batch: Batch):
        masks = [(one.context.numpy(), one.targets.numpy()) for one in batch.masks]
        actions = None if batch.actions is None else batch.actions.numpy()
        self.message = (*outbox.address, layouts, count, masks, batch.label.numpy(), batch.key, actions)

    def __reduce__(self) -> tuple:
        return _open, self.message


def _open(
    inbox: int,
    worker: int,
    number: int,
    block: Tensor | None,
    layouts: list[Layout],
    count: int,
    masks: list[tuple[np.ndarray, np.ndarray]],
    label: np.ndarray,
    key: list[str],
    actions: np.ndarray | None,
) -> Batch | None:
    """Makes the batch from a worker's message."""
    box = _inboxes.get(inbox)
    if box is None:
        return None  # the loader is gone; nobody waits for this batch
    if block is None:
        block = box.blocks[worker, number]
    elif number != LONE:
        box.blocks[worker, number] = block
    views = views_in(_borrowed(block), layouts, count, len(key))
    pairs = [Masks(*(torch.from_numpy(part) for part in one)) for one in masks]
    acted = None if actions is None else torch.from_numpy(actions)
    return Batch(views, pairs, torch.from_numpy(label), key, acted)


def _borrowed(block: Tensor) -> Tensor:
    """The memory of a block, which is free again when no tensor uses it any more.

    The array is the tensors' common owner, whatever is made of them: torch lets go of it with their storage.
    """
    bytes_ = block.numpy()
    array = bytes_[HEADER:]
    weakref.finalize(array, _release, bytes_, os.getpid()).atexit = False
    return torch.from_numpy(array)


def _release(block: np.ndarray, owner: int) -> None:
    if os.getpid() == owner:  # a process forked from this one must not speak for it
        block[0] = 0

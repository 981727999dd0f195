"""Shards to batches: a DataLoader that knows where it is."""

import signal
from collections.abc import Iterator
from functools import partial

import torch
from torch.utils.data import DataLoader, get_worker_info

from jepa_pretrain.contracts import Batch, UserError
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.order import Draw, InOrder, Steps
from jepa_pretrain.data.parcel import Inbox, Outbox
from jepa_pretrain.data.pictures import Pictures
from jepa_pretrain.data.spans import SINGLE, Span
from jepa_pretrain.data.views import View

GRACE = 60  # seconds that a worker goes on for after SIGTERM, while the training process ends its step and saves


class Loader(DataLoader[Batch]):
    """A DataLoader of whole batches that knows where it is, and whose errors are one line.

    `state_dict` tells the epoch and where in it the next batch begins; `load_state_dict` continues there without
    reading what lies before.

    Args:
        pictures: Makes the batches.
        workers: Processes; 0 reads in this one.
        epoch: The epoch of the first iteration.
        start: Samples of that epoch, over all ranks, that are skipped without reading them (evaluation: batches).
        pin: Put batches into page-locked memory, for a GPU.
    """

    def __init__(self, pictures: Pictures, workers: int, epoch: int = 0, start: int = 0, pin: bool = False):
        steps = Steps(pictures.order.draws, epoch, start, repeat=isinstance(pictures.order, InOrder))
        self._inbox = Inbox()
        super().__init__(
            pictures,
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            pin_memory=pin,
            persistent_workers=workers > 0,
            prefetch_factor=2 if workers else None,
            collate_fn=_unchanged,
            worker_init_fn=partial(_begin, self._inbox.number),
            generator=torch.Generator(),  # else every pass would draw from the generator that training uses
        )
        self._at = (epoch, start)

    def __iter__(self) -> Iterator[Batch]:
        epoch, start, stride = self.sampler.epoch, self.sampler.start, self.sampler.draws.step
        message = None
        try:
            for done, batch in enumerate(super().__iter__(), 1):
                self._at = (epoch, start + done * stride)
                yield batch
        except UserError as error:  # from a worker it comes wrapped in that worker's traceback
            message = str(error).strip().splitlines()[-1].split("UserError: ", 1)[-1]
            error.with_traceback(None)  # the frames in it would keep the workers waiting
        if message:  # raised out here for the same reason: the workers stop at once
            self._iterator = None
            raise UserError(message)

    def state_dict(self) -> dict[str, int]:
        """Where the iteration is: its epoch, and where in that epoch the next batch begins."""
        epoch, start = self._at
        return {"epoch": epoch, "start": start}

    @property
    def latest(self) -> Draw:
        """The batch that was handed out last."""
        epoch, start = self._at
        return Draw(epoch, start - self.sampler.draws.step)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state` says, at the next iteration."""
        epoch, start = state["epoch"], state["start"]
        self.sampler.epoch, self.sampler.start = (epoch, start) if start < self.sampler.draws.stop else (epoch + 1, 0)
        self._at = (epoch, start)


def _unchanged(batch: Batch) -> Batch:
    return batch


def _begin(inbox: int, worker: int) -> None:
    """Makes a worker ready. Workers are the parallelism; more threads in each would fight over the same cores."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGUSR1):  # reach every process of a job; the one that asked for data decides
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))  # so does this one, but a stuck worker must end
    get_worker_info().dataset.outbox = Outbox(inbox, worker)


def batches(
    source: str | list[str],
    view: View,
    batch_size: int = 256,
    workers: int = 2,
    cache: str | None = None,
    span: Span = SINGLE,
    clips: int = 1,
) -> Loader:
    """Every sample of some shards once, in order: what evaluations read.

    Args:
        source: A path, URL, brace or glob pattern, a folder, or a list of these.
        view: What the encoder sees of each clip, e.g. `CentreCrop(224)`.
        batch_size: Samples per batch.
        workers: Processes that read and decode.
        cache: Folder for copies of compressed and remote shards.
        span: What a clip covers of a video.
        clips: Evenly spread clips per video, each of which becomes one of the batch's views; one lies in the middle.
    """
    index = open_index(source, cache)
    return Loader(Pictures(index, InOrder(index.sizes, batch_size), [view] * clips, span=span), workers)

"""Single samples from shards: opened, read, decoded, and skipped where they are broken."""

import logging
from collections import OrderedDict
from typing import NamedTuple

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.archive import Shard, TooLarge
from jepa_pretrain.data.clips import EXTENSIONS, decode, is_video
from jepa_pretrain.data.images import BrokenPicture
from jepa_pretrain.data.index import Index
from jepa_pretrain.data.labels import label_of
from jepa_pretrain.data.spans import SINGLE, Span, Taken, actions_at
from jepa_pretrain.data.tensors import ACTIONS, read_actions

log = logging.getLogger(__name__)
TOLERATED = 9  # broken samples that are never too many, however few were read


class Sample(NamedTuple):
    """One sample as it lies in its shard."""

    data: bytearray | None  # the encoded picture or video, if it has one
    label: int  # -1 where there is none
    key: str  # "shard/sample"
    extension: str = ""  # what `data` is
    actions: bytearray | None = None  # the member with the actions, where there is one
    fault: str = "the sample has no picture or video member"  # why there is no data


class Samples:
    """Random access to the samples of some shards; counts the broken ones of this process.

    Args:
        index: The shards.
        max_broken: Share of broken samples past which reading stops; ten are needed at least.
        keep_open: How many shards may be open at a time.
        span: What a clip covers of a video.
    """

    def __init__(self, index: Index, max_broken: float, keep_open: int, span: Span = SINGLE):
        self.index, self.max_broken, self.keep_open, self.span = index, max_broken, keep_open, span
        self.seen, self.broken = 0, 0
        self.latest = ""  # the latest broken sample, and why
        self._reported: set[str] = set()
        self._open: OrderedDict[int, Shard] = OrderedDict()

    def read(self, shard: int, number: int) -> Sample:
        """The bytes of one sample."""
        tar = self._shard(shard)
        extension, label = tar.first(number, EXTENSIONS) or "", label_of(tar, number, len(self.index.classes))
        key = f"{tar.name}/{tar.keys[number]}"
        try:
            return Sample(tar.read(number, extension), label, key, extension, tar.read(number, ACTIONS))
        except TooLarge as error:
            return Sample(None, label, key, fault=str(error))

    def clips(self, sample: Sample, places: list[float]) -> list[Taken] | None:
        """Clips of a sample, by their places; None, with a log line the first time, where it is broken."""
        self.seen += 1
        try:
            if sample.data is None:
                raise BrokenPicture(sample.fault)
            clips = decode(sample.data, sample.extension, self.span, places)
            return clips if sample.actions is None else [self._with_actions(clip, sample.actions) for clip in clips]
        except BrokenPicture as error:
            self._count_broken(sample.key, str(error))
            return None

    def _with_actions(self, clip: Taken, data: bytearray) -> Taken:
        actions = read_actions(data, max(clip.numbers) + 1)
        stride = self.span.stride if self.span.fps is None else None
        return clip._replace(actions=actions_at(actions, clip.numbers, stride))

    def _shard(self, number: int) -> Shard:
        """An open shard; the least recently used one is closed when there are too many."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if len(self._open) >= self.keep_open:
            self._open.popitem(last=False)
        self._open[number] = self.index.shards[number].open(self.index.cache)
        return self._open[number]

    def _count_broken(self, key: str, reason: str) -> None:
        self.broken += 1
        self.latest = f"{key} ({reason})"
        if key not in self._reported:
            self._reported.add(key)
            log.warning("broken sample skipped: %s", self.latest)
        if self.broken > TOLERATED and self.broken > self.max_broken * self.seen:
            raise UserError(
                f"{self.broken} of {self.seen} samples read are broken, more than max_broken = {self.max_broken:g} "
                f"allows; the latest: {self.latest}; `shards verify` lists them all"
            )


def holds_videos(index: Index) -> bool:
    """Whether the first sample is a video."""
    entry = next(entry for entry in index.shards if entry.samples)
    return is_video(entry.open(index.cache).first(0, EXTENSIONS) or "")

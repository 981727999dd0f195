"""Batches of pictures among batches of clips, in one run (V-JEPA 2.1, https://arxiv.org/abs/2603.14482).

A batch holds one kind: clips of so many frames, or pictures as clips of one frame, with masks on the grid of one step.
Which kind comes when, and which samples, is a pure function of (seed, epoch, position), as without pictures.
"""

from typing import Any

from torch.utils.data import Dataset

from jepa_pretrain.contracts import Batch, Grid, UserError
from jepa_pretrain.data.order import Draw, Shuffled
from jepa_pretrain.data.parcel import Outbox, Parcel
from jepa_pretrain.data.pictures import Pictures
from jepa_pretrain.data.shards import Shards


class Turns:
    """The order of batches of two kinds: every so-manieth is of the second; an epoch is a pass over the first.

    Passes over the second kind follow one another without regard to epochs of the first.

    Args:
        first: Order of the first kind.
        second: Order of the second, with the same batch size.
        every: Of so many batches the last is of the second kind.
    """

    def __init__(self, first: Shuffled, second: Shuffled, every: int):
        if every < 2:
            raise UserError(f"of every {every} batches one is of pictures: give 2 or more, else no clip is seen")
        if first.group != second.group:
            raise UserError(
                f"videos and pictures come in batches of one size, not of {first.batch_size} and {second.batch_size}"
            )
        self.first, self.second, self.every = first, second, every
        clips = len(first.draws)
        self.draws = range(0, (clips + clips // (every - 1)) * first.group, first.group)

    def turn(self, draw: Draw) -> tuple[bool, Draw]:
        """Whether a batch is of the second kind, and which one of its own kind."""
        number, group = draw.first // self.first.group, self.first.group
        before = number // self.every  # of the second kind, in this epoch
        if (number + 1) % self.every:
            return False, Draw(draw.epoch, (number - before) * group)
        each = len(self.draws) // self.every
        epoch, place = divmod(draw.epoch * each + before, len(self.second.draws))
        return True, Draw(epoch, place * group)


class Mixture(Dataset[Batch]):
    """Makes the batch that a `Draw` names, of clips or of pictures.

    Args:
        order: Which kind comes when.
        videos: Makes batches of clips.
        pictures: Makes batches of pictures.
    """

    def __init__(self, order: Turns, videos: Pictures, pictures: Pictures):
        self.order, self.videos, self.pictures = order, videos, pictures

    def __len__(self) -> int:
        return len(self.order.draws)

    def __getitem__(self, draw: Draw) -> Batch | Parcel:
        second, own = self.order.turn(draw)
        return (self.pictures if second else self.videos)[own]

    @property
    def outbox(self) -> Outbox | None:
        """Where a worker puts its batches."""
        return self.videos.outbox

    @outbox.setter
    def outbox(self, box: Outbox | None) -> None:
        self.videos.outbox = self.pictures.outbox = box


class Mixed(Shards):
    """Shards of videos, with batches of pictures among theirs; validation and classes are the videos'.

    Args:
        videos: The clips, as without pictures; the span tells how long they are. Its workers read both.
        pictures: The pictures: their shards, views and maskers; their labels are not used.
        every: Of so many batches one is of pictures.
        grid: Token grid of the encoder, for the maskers; recipes link it from the model.
    """

    def __init__(self, videos: Shards, pictures: Shards, every: int = 2, grid: Grid | None = None):
        super().__init__(
            videos.train, videos.views, videos.val, videos.val_view, videos.maskers, grid or videos.grid,
            videos.batch_size, videos.workers, videos.seed, videos.reading, videos.span,
        )  # fmt: skip
        if pictures.span.frames != 1:
            raise UserError("pictures are clips of one frame: leave data.pictures.span as it is")
        self.pictures, self.every = pictures, every
        if pictures.batch_size != videos.batch_size:
            raise UserError(
                f"videos and pictures come in batches of one size, not of {videos.batch_size} and {pictures.batch_size}"
            )

    def _pictures(self, rank: int, world: int) -> Mixture:
        videos, other = super()._pictures(rank, world), self.pictures
        index, grid = other.index(), self.grid and Grid(1, self.grid.h, self.grid.w)
        order = Shuffled(index.sizes, self.batch_size, world, rank, other.seed, other.reading.window)
        stills = Pictures(index, order, other.views, other.maskers, grid, other.reading.max_broken, labels=False)
        return Mixture(Turns(videos.order, order, self.every), videos, stills)

    def standing(self) -> dict[str, int | str]:
        """What the order of the samples depends on, for a checkpoint."""
        other = self.pictures
        fixed = {"pictures": other.index().digest, "pictures_seed": other.seed, "every": self.every}
        return super().standing() | fixed | {"pictures_window": other.reading.window}

    def resume(self, epoch: int, batch: int, before: dict[str, int | str]) -> tuple[int, float]:
        """As `Shards.resume`, for a run of the same batch size and ranks, whose turns are the same."""
        now = self.standing()
        for name in ("pictures", "pictures_seed", "pictures_window", "every"):
            if now[name] != before.get(name):
                raise UserError(
                    f"the run was trained with other turns of pictures ({name} was {before.get(name)}, now "
                    f"{now[name]}), so the rest of its epoch cannot be told: restore it, or start another --run"
                )
        sizes = [one["batch_size"] * one["ranks"] for one in (before, now)]
        if sizes[0] != sizes[1]:
            raise UserError(
                f"a run of videos and pictures goes on with its global batch of {sizes[0]}, not with {sizes[1]}: "
                "restore batch_size and ranks, or start another --run"
            )
        return super().resume(epoch, batch, before)

    def provenance(self) -> dict[str, Any]:
        """What an export says about its data."""
        other = self.pictures
        return super().provenance() | {"pictures": {"train": other.train, "digest": other.index().digest}}

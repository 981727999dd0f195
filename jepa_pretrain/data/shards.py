"""`Shards`: what a recipe's `data:` section is; WebDataset shards for training and validation."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningDataModule

from jepa_pretrain.contracts import Batch, Grid, Masker, UserError
from jepa_pretrain.data.index import Index, open_index
from jepa_pretrain.data.order import Draw, InOrder, Shuffled
from jepa_pretrain.data.pictures import Pictures
from jepa_pretrain.data.spans import SINGLE, Span
from jepa_pretrain.data.stream import Loader
from jepa_pretrain.data.views import CentreCrop, View


@dataclass(frozen=True)
class Reading:
    """How shards are read; none of it changes what an epoch holds.

    Args:
        window: How many shards are mixed with each other; larger mixes better, smaller reads more locally.
        cache: Folder for copies of compressed and remote shards; by default one in the system's temporary folder.
        max_broken: Share of broken samples past which training stops (ten broken ones are needed at least).
    """

    window: int = 16
    cache: str | None = None
    max_broken: float = 0.01


class Shards(LightningDataModule):
    """Shards of pictures, of videos or of both, split over ranks and workers, with views and masks.

    Args:
        train: Training shards: a path, URL, brace or glob pattern, a folder, or a list of these.
        views: What the method sees of each training clip, one entry per view.
        val: Validation shards, like `train`; None for no validation.
        val_view: What the method sees of a validation clip; by default the centre, of the first view's size.
        masker: Draws the masks of masked prediction, or a list of such, each for masks of its own; None for methods
            without.
        grid: Token grid of the encoder, for the masker; recipes link it from the model.
        batch_size: Samples per step and device.
        workers: Processes per device that read, decode and augment; 0 does it in the training process.
        seed: Names the order of the samples, the augmentations and the masks.
        reading: How shards are read.
        span: What a clip covers of a video, e.g. 16 frames at 8 per second; single frames by default. It lies at a
            random place in training, in the middle in validation. Pictures are held for as long.
    """

    def __init__(
        self,
        train: str | list[str],
        views: list[View],
        val: str | list[str] | None = None,
        val_view: View | None = None,
        masker: Masker | list[Masker] | None = None,
        grid: Grid | None = None,
        batch_size: int = 64,
        workers: int = 2,
        seed: int = 0,
        reading: Reading = Reading(),
        span: Span = SINGLE,
    ):
        super().__init__()
        self.train, self.val, self.views = train, val, views
        self.maskers = [masker] if isinstance(masker, Masker) else masker or []
        self.grid, self.batch_size, self.workers, self.seed, self.reading = grid, batch_size, workers, seed, reading
        self.span = span
        self.val_view = val_view or self._centre()
        self._indexes: dict[str, Index] = {}
        self._begin = (0, 0)  # epoch and sample of the first training batch

    def index(self, split: str = "train") -> Index:
        """The shards of a split ("train" or "val"), read once."""
        if split not in self._indexes:
            source = {"train": self.train, "val": self.val}[split]
            if source is None:
                raise UserError(f"no {split} shards were given")
            self._indexes[split] = open_index(source, self.reading.cache)
        return self._indexes[split]

    @property
    def classes(self) -> list[str]:
        """Class names of the training shards; empty where unknown."""
        return self.index().classes

    def train_dataloader(self) -> Loader:
        """Shuffled, with views and masks; the same number of full batches on every rank."""
        return Loader(self._pictures(*self._place()), self.workers, *self._begin, pin=torch.cuda.is_available())

    def batch(self, draw: Draw, rank: int = 0, world: int = 1) -> Batch:
        """One training batch, made again: the same pictures, augmentations and masks as in a run.

        Args:
            draw: Which one.
            rank: Whose part of the global batch.
            world: Number of ranks.
        """
        return self._pictures(rank, world)[draw]

    def _pictures(self, rank: int, world: int) -> Pictures:
        index = self.index()
        order = Shuffled(index.sizes, self.batch_size, world, rank, self.seed, self.reading.window)
        return Pictures(index, order, self.views, self.maskers, self.grid, self.reading.max_broken, self.span)

    def val_dataloader(self) -> Loader | list[Loader]:
        """In order, one centred view, every sample exactly once over all ranks; empty without `val`."""
        if self.val is None:
            return []
        rank, world = self._place()
        index = self.index("val")
        order = InOrder(index.sizes, self.batch_size, world, rank)
        pictures = Pictures(index, order, [self.val_view], max_broken=self.reading.max_broken, span=self.span)
        return Loader(pictures, self.workers, pin=torch.cuda.is_available())

    def standing(self) -> dict[str, int | str]:
        """What the order of the samples depends on, for a checkpoint."""
        _, ranks = self._place()
        index = self.index()
        fixed = {"samples": index.samples, "digest": index.digest, "seed": self.seed, "window": self.reading.window}
        return fixed | {"batch_size": self.batch_size, "ranks": ranks}

    def resume(self, epoch: int, batch: int, before: dict[str, int | str]) -> tuple[int, float]:
        """Let training begin in the midst of an epoch; nothing of what lies before is read.

        Args:
            epoch: The epoch.
            batch: Global batches of it that are done.
            before: `standing()` of the run that did them.

        Returns:
            How many of this run's batches count as done, and how many of its batches one of the earlier ones is.

        Raises:
            UserError: The samples, or their order, are not those of the earlier run.
        """
        now = self.standing()
        for name, what in (("digest", "shards"), ("seed", "data.seed"), ("window", "data.reading.window")):
            if now[name] != before[name]:
                raise UserError(
                    f"{what} differ from those the run was trained with ({before[name]}, now {now[name]}), so the rest "
                    "of its epoch cannot be told: restore them, or start a run of its own with another --run"
                )
        old, new = (one["batch_size"] * one["ranks"] for one in (before, now))
        done, total = batch * old, now["samples"]
        self._begin = (epoch, done)
        if old == new:
            return batch, 1.0
        if self.trainer.is_global_zero:
            print(
                f"a global batch is {now['batch_size']} x {now['ranks']} ranks, was {before['batch_size']} x "
                f"{before['ranks']}: epoch {epoch} goes on behind its sample {done:,} of {total:,} and reads each of "
                f"the others once (fewer than {new} at its end are left out); the weights are not an undisturbed run's",
                flush=True,
            )
        return total // new - (total - done) // new, old / new

    def provenance(self) -> dict[str, Any]:
        """What an export says about its data: patterns, number of samples and classes, digests of the indexes."""
        index = self.index()
        found = {"train": self.train, "samples": index.samples, "classes": index.classes, "digest": index.digest}
        if self.val is not None:
            val = self.index("val")
            found["val"] = {"shards": self.val, "samples": val.samples, "digest": val.digest}
        return found | {"seed": self.seed}

    def _centre(self) -> View:
        """A centred view of the size that the first training view gives."""
        if not self.views:
            raise UserError("no views given: `data.views` needs at least one, e.g. RandomCrop")
        state = torch.get_rng_state()
        size = self.views[0](torch.zeros(1, 3, 256, 256, dtype=torch.uint8)).shape[-1]
        torch.set_rng_state(state)
        return CentreCrop(size)

    def _place(self) -> tuple[int, int]:
        """(rank, number of ranks)."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

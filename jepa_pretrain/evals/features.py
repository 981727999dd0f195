"""Pooled features of a data set, computed once and kept on disk: what the linear probe and k-NN work on."""

import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from jepa_pretrain.contracts import Batch, UserError
from jepa_pretrain.evals.kept import Kind, Stored, both
from jepa_pretrain.evals.reader import Reader
from jepa_pretrain.ops import pool

LAYERS = 4  # another number needs another `kept.VERSION`


class Features(NamedTuple):
    """Average-pooled features of n pictures or videos."""

    layers: Tensor  # (n, D_1 + ... + D_4), the last four layers side by side, oldest first
    width: int  # the last `width` columns are the last layer
    label: Tensor  # (n,) int64, -1 where there is none

    @property
    def last(self) -> Tensor:
        """`(n, D)`, the last layer alone."""
        return self.layers[:, -self.width :]

    def pick(self, index: Tensor) -> "Features":
        """The features of some of them."""
        return Features(self.layers[index], self.width, self.label[index])

    def labelled(self) -> "Features":
        """Only those that have a label."""
        return self if bool((self.label >= 0).all()) else self.pick(self.label >= 0)

    def to(self, device: torch.device) -> "Features":
        """The same on another device."""
        return Features(self.layers.to(device), self.width, self.label.to(device))


def load(encoder: nn.Module, train: str, test: str, reader: Reader, console: Console) -> tuple[Features, Features]:
    """Features of a training and a test set, from the cache where they lie there already; see `kept.both`."""
    return both(KIND, encoder, train, test, reader, console)


@torch.no_grad()
def extract(encoder: nn.Module, stream: Iterable[Batch], samples: int, title: str, console: Console) -> Features:
    """Average-pooled tokens of the last four layers, averaged over clips, for every sample of a stream.

    Args:
        encoder: A `FrozenEncoder` or `Pixels`.
        stream: Batches whose views are clips that the encoder takes.
        samples: How many to expect, for the progress bar.
        title: What is read, for the progress bar.
        console: Where the progress bar is.
    """
    rows, labels, width = [], [], 0
    for batch in followed(stream, samples, title, console):
        of_clips = [_pooled(encoder, clip) for clip in batch.views]
        rows.append(torch.stack([torch.cat(pooled, dim=1) for pooled in of_clips]).mean(0))  # (B, D_1 + ... + D_4)
        labels.append(batch.label)
        width = of_clips[0][-1].shape[1]
    features = Features(torch.cat(rows), width, torch.cat(labels))
    check_finite(features.layers, title)
    return features


def _pooled(encoder: nn.Module, clip: Tensor) -> list[Tensor]:
    """Pooled tokens (B, D_i) of the last layers, on the CPU."""
    device = next((part.device for part in encoder.parameters()), clip.device)
    return [pool(tokens).float().cpu() for tokens in encoder.forward_layers(clip.to(device), LAYERS)]


def followed(stream: Iterable[Batch], samples: int, title: str, console: Console) -> Iterator[Batch]:
    """The batches of a stream, with a progress bar or lines that say where it is.

    Args:
        stream: Batches.
        samples: How many samples to expect.
        title: What is read.
        console: Where the bar is.

    Raises:
        UserError: There was no sample in it.
    """
    start, done = time.perf_counter(), 0
    if not console.is_terminal:
        console.print(f"{title}: reading {samples} samples", highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=samples)
        for batch in stream:
            yield batch
            done += len(batch.label)
            bar.advance(task, len(batch.label))
    if not done:
        raise UserError(f"{title} holds no readable picture or video")
    seconds = time.perf_counter() - start
    rate = f"{done} samples in {seconds:.1f} s, {done / seconds:.0f} per second"
    console.print(f"{title}: {rate}", highlight=False, soft_wrap=True)


def check_finite(features: Tensor, title: str) -> None:
    """Refuse features of an encoder whose training has diverged."""
    if not features.isfinite().all():
        raise UserError(f"the encoder gives features that are not finite on {title}; its training has diverged")


def _pack(features: Features) -> Stored:
    return Stored({"layers": features.layers, "label": features.label}, {"width": str(features.width)})


def _unpack(stored: Stored) -> Features:
    found = Features(stored.tensors["layers"], int(stored.words["width"]), stored.tensors["label"])
    rows, columns = found.layers.shape if found.layers.ndim == 2 else (0, 0)
    fits = found.label.shape == (rows,) and found.label.dtype == torch.int64 and 0 < found.width <= columns
    if not fits or not found.layers.is_floating_point():
        raise ValueError("these are no features")
    return found


KIND = Kind("features", extract, _pack, _unpack)

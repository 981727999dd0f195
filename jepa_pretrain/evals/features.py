"""Pooled features of a data set, computed once and kept on disk: what the linear probe and k-NN work on."""

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from jepa_pretrain.contracts import Batch, UserError
from jepa_pretrain.data.index import Index, open_index
from jepa_pretrain.evals.encoders import digest
from jepa_pretrain.evals.reader import Reader, tell
from jepa_pretrain.ops import pool

LAYERS = 4
CALIBRATION = 2048  # pictures that settle the batch-norm statistics of an untrained encoder
VERSION = 2  # of the cached files
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


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
    """Features of a training and a test set, from the cache where they lie there already.

    An untrained encoder gets its batch-norm statistics from the first training pictures, before it sees any.

    Args:
        encoder: A `FrozenEncoder` or `Pixels`.
        train: Shards: a path, URL, brace or glob pattern, or a folder.
        test: The same for the test set.
        reader: How to read, and where the cache is.
        console: Where to say what is done.
    """
    indices = {source: open_index(source, reader.cache) for source in (train, test)}
    calibrate_on = indices[train].digest if needs_calibration(encoder) else None
    state = digest(encoder)  # before calibration, which changes it
    paths = {source: _path(state, encoder, index, calibrate_on, reader) for source, index in indices.items()}
    found = {source: _read(path) for source, path in paths.items()}
    if None in found.values():
        tell(encoder, indices[train], reader, console)
    if calibrate_on and None in found.values():
        settle(encoder, train, reader, console)
    for source, features in found.items():
        if features is not None:
            line = f"{source}: features of {len(features.label)} samples from the cache"
            console.print(line, highlight=False, soft_wrap=True)
            continue
        encoder.to(reader.place)
        samples = indices[source].samples
        found[source] = extract(encoder, reader.stream(encoder, source), samples, source, console)
        _write(paths[source], found[source])
    return found[train], found[test]


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


def settle(encoder: nn.Module, train: str, reader: Reader, console: Console) -> None:
    """Give an untrained encoder its batch-norm statistics, from training samples; others stay as they are.

    Args:
        encoder: A `FrozenEncoder` or `Pixels`; moved to the reader's device.
        train: Training shards.
        reader: How they are read.
        console: Where to say so.
    """
    encoder.to(reader.place)
    if needs_calibration(encoder):
        console.print("untrained batch norm: its statistics are taken from training samples", highlight=False)
        calibrate(encoder, reader.stream(encoder, train), reader.place)


def needs_calibration(encoder: nn.Module) -> bool:
    """Whether batch-norm statistics are still those of no data at all."""
    return encoder.untrained and any(isinstance(part, BATCH_NORMS) for part in encoder.modules())


@torch.no_grad()
def calibrate(encoder: nn.Module, stream: Iterable[Batch], device: torch.device, pictures: int = CALIBRATION) -> None:
    """Give an untrained encoder the batch-norm statistics of real pictures, else the comparison would flatter ours.

    Args:
        encoder: An untrained encoder; changed in place.
        stream: Batches of training pictures.
        device: Where the encoder is.
        pictures: How many to look at, at least; a plain average over their batches.
    """
    norms = [part for part in encoder.modules() if isinstance(part, BATCH_NORMS)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    seen = 0
    for batch in stream:
        encoder(batch.views[0].to(device))
        seen += len(batch.label)
        if seen >= pictures:
            break
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _path(state: str, encoder: nn.Module, index: Index, calibrated: str | None, reader: Reader) -> Path:
    """Where the features lie; any change of weights, samples, clips or preprocessing gives another place."""
    stamps = [(entry.address, _stamp(entry.address)) for entry in index.shards]
    seen = (encoder.image_size, astuple(reader.span(encoder)), reader.clips)
    parts = (VERSION, LAYERS, state, seen, index.digest, stamps, calibrated and (CALIBRATION, calibrated))
    return _folder(reader.cache) / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}.safetensors"


def _stamp(address: str) -> tuple[int, int]:
    """Size and time of a local shard, since shards without an index have no checksum; zeros for a remote one."""
    if not os.path.isfile(address):
        return 0, 0
    status = os.stat(address)
    return status.st_size, status.st_mtime_ns


def _folder(cache: str | None) -> Path:
    if cache:
        return Path(cache) / "features"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jepa_pretrain" / "features"


def _read(path: Path) -> Features | None:
    """Cached features; a damaged file counts as absent and is replaced."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            found = Features(file.get_tensor("layers"), int(file.metadata()["width"]), file.get_tensor("label"))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
        return None
    rows, columns = found.layers.shape if found.layers.ndim == 2 else (0, 0)
    fits = found.label.shape == (rows,) and found.label.dtype == torch.int64 and 0 < found.width <= columns
    return found if fits and found.layers.is_floating_point() else None


def _write(path: Path, features: Features) -> None:
    """Under a temporary name first, so that no reader ever sees half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(suffix=".part", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise UserError(f"cannot keep features in {path.parent}: {error}; choose a folder with --cache") from error
    try:
        tensors = {"layers": features.layers.contiguous(), "label": features.label.contiguous()}
        save_file(tensors, part, metadata={"width": str(features.width)})
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot keep features in {path.parent}: {error}; choose a folder with --cache") from error
    finally:
        Path(part).unlink(missing_ok=True)

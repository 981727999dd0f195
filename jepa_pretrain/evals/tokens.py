"""All tokens of the last layer, for probes that attend to them; kept on disk, and in memory while a probe trains."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor, nn

from jepa_pretrain.contracts import Batch, UserError
from jepa_pretrain.data.index import open_index
from jepa_pretrain.evals.features import check_finite, followed
from jepa_pretrain.evals.kept import Kind, Stored, both
from jepa_pretrain.evals.reader import Reader

GIB = 2**30


class Tokens(NamedTuple):
    """Tokens of n pictures or videos; those of a video's clips are side by side."""

    tokens: Tensor  # (n, N, D) float16, on the CPU
    label: Tensor  # (n,) int64, -1 where there is none

    def pick(self, index: Tensor) -> "Tokens":
        """The tokens of some of them."""
        return Tokens(self.tokens[index], self.label[index])

    def labelled(self) -> "Tokens":
        """Only those that have a label."""
        return self if bool((self.label >= 0).all()) else self.pick(self.label >= 0)


def load(
    encoder: nn.Module, train: str, test: str, memory: float, reader: Reader, console: Console
) -> tuple[Tokens, Tokens]:
    """Tokens of a training and a test set, from the cache where they lie there already; see `kept.both`.

    Args:
        encoder: A `FrozenEncoder`.
        train: Training shards.
        test: Test shards.
        memory: GiB that the tokens of both may take.
        reader: How to read, and where the cache is.
        console: Where to say what is done.

    Raises:
        UserError: They would take more.
    """
    samples = sum(open_index(source, reader.cache).samples for source in (train, test))
    needed = samples * reader.clips * encoder.grid.tokens * encoder.width * 2 / GIB
    if needed > memory:
        raise UserError(
            f"the tokens of {samples} samples take {needed:.1f} GiB, more than --memory {memory:g} allows: "
            f"allow more, or take fewer shards or clips"
        )
    return both(KIND, encoder, train, test, reader, console)


@torch.no_grad()
def extract(encoder: nn.Module, stream: Iterable[Batch], samples: int, title: str, console: Console) -> Tokens:
    """Tokens of the last layer, for every sample of a stream.

    Args:
        encoder: A `FrozenEncoder`.
        stream: Batches whose views are clips that the encoder takes.
        samples: How many to expect, for the progress bar.
        title: What is read, for the progress bar.
        console: Where the progress bar is.
    """
    device = next(part.device for part in encoder.parameters())
    rows, labels = [], []
    for batch in followed(stream, samples, title, console):
        of_clips = [encoder(clip.to(device)).half().cpu() for clip in batch.views]
        rows.append(torch.cat(of_clips, dim=1))  # (B, clips * N, D)
        labels.append(batch.label)
    tokens = Tokens(torch.cat(rows), torch.cat(labels))
    check_finite(tokens.tokens, title)
    return tokens


def _pack(found: Tokens) -> Stored:
    return Stored({"tokens": found.tokens, "label": found.label}, {})


def _unpack(stored: Stored) -> Tokens:
    found = Tokens(stored.tensors["tokens"], stored.tensors["label"])
    if found.tokens.ndim != 3 or found.tokens.dtype != torch.float16:
        raise ValueError("these are no tokens")
    if found.label.shape != found.tokens.shape[:1] or found.label.dtype != torch.int64:
        raise ValueError("the labels are others'")
    return found


KIND = Kind("tokens", extract, _pack, _unpack)

"""Batch-norm statistics for untrained encoders, so that the baseline is what a trained encoder begins with."""

from collections.abc import Iterable

import torch
from rich.console import Console
from torch import nn

from jepa_pretrain.contracts import Batch
from jepa_pretrain.evals.reader import Reader

CALIBRATION = 2048  # samples that settle the statistics
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


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

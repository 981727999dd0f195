"""Whether two ways to the same tokens agree, and how an encoder is asked for some."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError

TOLERANCE = 1e-4  # of the largest token entry, at a scale of 1 or more; fp32
BATCHES = (1, 3)  # two sizes, so that a batch size kept by accident is noticed


def sample(encoder: nn.Module, batch: int) -> Tensor:
    """Random input of an encoder, 0..1: pictures `(B, 3, H, W)`, or clips `(B, 3, T, H, W)` where it takes clips."""
    frames = encoder.config.get("frames", 1)
    size = (encoder.image_size, encoder.image_size)
    generator = torch.Generator().manual_seed(batch)
    return torch.rand(batch, 3, *((frames,) if frames > 1 else ()), *size, generator=generator)


@torch.no_grad()
def agreement(encoder: nn.Module, theirs: Callable[[Tensor], Tensor], source: str) -> float:
    """The largest difference of token entries between an encoder and what was written of it.

    Args:
        encoder: Ours, with its normalisation.
        theirs: What the written file computes of the same input.
        source: The file, for the message.

    Raises:
        UserError: It is beyond `TOLERANCE`, or the shapes differ.
    """
    worst = 0.0
    for batch in BATCHES:
        images = sample(encoder, batch)
        ours = encoder.eval()(images if images.dim() == 5 else images.unsqueeze(2))
        found = theirs(images)
        if found.shape != ours.shape:
            raise UserError(
                f"{source}: expected tokens {tuple(ours.shape)} when read again, found {tuple(found.shape)}"
            )
        worst, scale = max(worst, (found - ours).abs().max().item()), max(1.0, ours.abs().max().item())
        if not worst <= TOLERANCE * scale:  # NaN is not
            raise UserError(
                f"{source}: tokens differ by {worst:.2g} when read again, at most {TOLERANCE * scale:.1g} is right"
            )
    return worst

"""Weights into a module, exactly."""

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.architectures import check_shapes


def normalisation(encoder: nn.Module) -> dict[str, list[float]]:
    """Mean and deviation per channel, on the scale 0..1, that the encoder really uses."""
    own = encoder.normalise
    return {"mean": own.mean.flatten().tolist(), "std": own.std.flatten().tolist()}


def fill(encoder: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load weights into an encoder, exactly: every tensor of both sides must match in name and shape.

    Args:
        encoder: The module to fill.
        weights: Tensors by name.
        source: Where they come from, for the message.

    Raises:
        UserError: Names missing, names left over, other shapes or kinds of number, or values that are not finite.
    """
    own = encoder.state_dict()
    check_shapes(shapes(own), shapes(weights), source)
    for name, tensor in own.items():
        found = weights[name]
        if (
            found.is_floating_point() != tensor.is_floating_point()
            or found.is_complex()
            or found.layout != torch.strided
        ):
            raise UserError(f"{source}: {name} should hold {tensor.dtype} numbers, found {found.dtype}, {found.layout}")
        if not found.isfinite().all():
            raise UserError(f"{source}: {name} holds values that are not finite; its training has diverged")
    encoder.load_state_dict(weights)


def shapes(weights: dict[str, Tensor]) -> dict[str, torch.Size]:
    """The shape of every tensor."""
    return {name: tensor.shape for name, tensor in weights.items()}

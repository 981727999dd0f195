"""Many linear classifiers on one feature matrix, trained side by side as one matrix product.

Every head sees centred features whose mean squared norm is 1, so that one range of learning rates suits every encoder
and a poor optimiser does not decide a comparison:

    linear       centred, divided by one number: a plain linear head, in better units
    batch norm   centred, each dimension divided by its deviation, all divided by sqrt(D): a batch norm without affine
                 parameters before the linear head, with the exact statistics of the training set for the batch's
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

MOMENTUM = 0.9


class Inputs(NamedTuple):
    """How a head sees features: the affine map in front of it."""

    mean: Tensor  # (D,)
    factor: Tensor  # (D,) or ()

    def __call__(self, features: Tensor) -> Tensor:
        """`(B, D)` -> `(B, D)`."""
        return (features - self.mean) * self.factor


def inputs(features: Tensor, batch_norm: bool) -> Inputs:
    """The map in front of a head, from the features that it will be trained on.

    Args:
        features: `(n, D)` training features.
        batch_norm: Scale each dimension by its own deviation.
    """
    mean = features.mean(dim=0)
    variance = features.var(dim=0, unbiased=False)  # (D,)
    total = variance.sum().clamp_min(1e-24)
    if not batch_norm:
        return Inputs(mean, total.rsqrt())
    floor = 1e-8 * total / len(variance)  # a dead dimension stays dead instead of amplifying rounding errors
    return Inputs(mean, (variance.clamp_min(floor) * len(variance)).rsqrt())


class Heads(NamedTuple):
    """H linear classifiers over the same inputs."""

    inputs: Inputs
    weight: Tensor  # (D, H, C)
    bias: Tensor  # (H, C)

    def logits(self, features: Tensor) -> Tensor:
        """`(B, D)` -> `(B, H, C)`."""
        return (self.inputs(features) @ self.weight.flatten(1)).unflatten(1, self.bias.shape) + self.bias


def train(
    features: Tensor,
    label: Tensor,
    classes: int,
    lr: Tensor,
    weight_decay: Tensor,
    batch_norm: bool,
    epochs: int,
    batch_size: int,
    seed: int,
) -> Heads:
    """Train H heads by SGD with momentum .9 and a cosine to zero; all of them see the same batches.

    Args:
        features: `(n, D)`.
        label: `(n,)` int64 below `classes`.
        classes: Number of classes C.
        lr: `(H,)` initial learning rate per head.
        weight_decay: `(H,)` L2 penalty on the weight (not the bias) per head.
        batch_norm: See the module's words.
        epochs: Passes over the features.
        batch_size: Samples per step, at most n.
        seed: Order of the samples.
    """
    x_of = inputs(features, batch_norm)
    weight = features.new_zeros(features.shape[1], len(lr), classes)
    bias = features.new_zeros(len(lr), classes)
    heads, speed_w, speed_b = Heads(x_of, weight, bias), torch.zeros_like(weight), torch.zeros_like(bias)
    rng = torch.Generator().manual_seed(seed)
    batch_size = min(batch_size, len(features))
    per_epoch = len(features) // batch_size
    step, steps = 0, epochs * per_epoch
    for _ in range(epochs):
        order = torch.randperm(len(features), generator=rng).to(features.device)
        for index in order[: per_epoch * batch_size].view(per_epoch, batch_size):
            rate = lr[:, None] * (0.5 + 0.5 * math.cos(math.pi * step / steps))  # (H, 1)
            x = x_of(features[index])
            error = _error(heads, x, label[index])  # (B, H, C)
            gradient = (x.T @ error.flatten(1)).unflatten(1, bias.shape).add_(weight * weight_decay[:, None])
            weight.sub_(rate * speed_w.mul_(MOMENTUM).add_(gradient))
            bias.sub_(rate * speed_b.mul_(MOMENTUM).add_(error.sum(dim=0)))
            step += 1
    return heads


def _error(heads: Heads, x: Tensor, label: Tensor) -> Tensor:
    """Gradient of each head's mean cross-entropy at its logits: (softmax - one-hot) / B, `(B, H, C)`."""
    logits = (x @ heads.weight.flatten(1)).unflatten(1, heads.bias.shape) + heads.bias
    error = logits.softmax(dim=-1)
    at = label[:, None, None].expand(-1, error.shape[1], 1)
    return error.scatter_add_(2, at, error.new_full(at.shape, -1.0)).div_(len(x))


def accuracy(heads: Heads, features: Tensor, label: Tensor, top: int = 1, chunk: int = 4096) -> Tensor:
    """Share of samples whose label is among the `top` largest logits, per head.

    Args:
        features: `(n, D)`.
        label: `(n,)`.
        top: How many guesses count.
        chunk: Samples at a time.

    Returns:
        `(H,)` float64.
    """
    hits = torch.zeros(heads.bias.shape[0], dtype=torch.float64)
    for start in range(0, len(features), chunk):
        guess = heads.logits(features[start : start + chunk]).topk(top, dim=-1).indices  # (B, H, top)
        hits += (guess == label[start : start + chunk, None, None]).any(dim=-1).sum(dim=0).cpu()
    return hits / len(features)

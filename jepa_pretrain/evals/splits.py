"""Which labelled samples are used for what; nothing here ever sees a test set."""

import torch
from torch import Tensor

from jepa_pretrain.contracts import UserError


def check_labels(train: Tensor, test: Tensor) -> int:
    """Refuse labels that no classifier can be trained and measured on.

    Args:
        train: `(n,)` labels of the training set, -1 where there is none.
        test: `(m,)` labels of the test set.

    Returns:
        The number of classes, one more than the largest training label.

    Raises:
        UserError: No labels, a single class, fewer than two samples in a class, or a test class unknown to train.
    """
    for name, label in (("train", train), ("test", test)):
        if not (label >= 0).any():
            raise UserError(f"the {name} shards hold no labels (.cls members); a probe needs labelled pictures")
    counts = torch.bincount(train[train >= 0])
    present = counts.nonzero().flatten()
    if len(present) < 2:
        raise UserError(f"all training labels are class {present.item()}; a probe needs at least two classes")
    few = (counts == 1).nonzero().flatten().tolist()
    if few:
        raise UserError(f"classes {few[:10]} have a single training sample; a probe needs two or more of each class")
    unknown = sorted(set(test[test >= 0].tolist()) - set(present.tolist()))
    if unknown:
        raise UserError(f"the test set has classes {unknown[:10]} that train lacks; are the shards of one data set?")
    return len(counts)


def holdout(label: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split indices class by class, at least one sample of each class on either side.

    Args:
        label: `(n,)`, every class with two samples or more.
        fraction: Share of each class to hold out.
        seed: Which ones.

    Returns:
        Indices to fit on and indices held out, each sorted.
    """
    rng = torch.Generator().manual_seed(seed)
    fit, held = [], []
    for members in _by_class(label):
        members = members[torch.randperm(len(members), generator=rng)]
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held.append(members[:count])
        fit.append(members[count:])
    return torch.cat(fit).sort().values, torch.cat(held).sort().values


def few(label: Tensor, shots: int, seed: int) -> Tensor:
    """Indices of `shots` samples of each class.

    Args:
        label: `(n,)`.
        shots: How many of each class; two or more.
        seed: Which ones.

    Raises:
        UserError: A class has fewer, or shots is below two.
    """
    if shots < 2:
        raise UserError(f"shots is {shots}; at least 2 of each class are needed, one of them for selection")
    rng = torch.Generator().manual_seed(seed)
    kept = []
    for members in _by_class(label):
        if len(members) < shots:
            raise UserError(f"class {label[members[0]].item()} has {len(members)} samples, fewer than shots = {shots}")
        kept.append(members[torch.randperm(len(members), generator=rng)[:shots]])
    return torch.cat(kept).sort().values


def _by_class(label: Tensor) -> list[Tensor]:
    return [(label == c).nonzero().flatten() for c in label.unique().tolist()]

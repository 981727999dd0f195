"""Slow states: the formula, and the way its gradient goes."""

from itertools import pairwise

import torch

from jepa_pretrain.objectives.slow import Slow
from jepa_pretrain.objectives.vicreg import VarianceCovarianceLoss


def test_the_change_is_added_to_the_objective():
    views = list(torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(True))
    plain = VarianceCovarianceLoss(16.0, 8.0)
    change = sum((b - a).square().mean() for a, b in pairwise(views)) / 3
    loss, terms = Slow(plain, 12.0)(views)
    torch.testing.assert_close(loss, plain(views)[0] + 12 * change)
    torch.testing.assert_close(terms["change"], change)
    slope = torch.autograd.grad(loss - plain(views)[0], views[0])[0]
    torch.testing.assert_close(slope, -24 * (views[1] - views[0]) / (3 * 16 * 8))

"""The predictor sees the context and the positions of the targets, and nothing else."""

import pytest
import torch

from jepa_pretrain.contracts import Grid, Masks
from jepa_pretrain.models.predictor import MaskedPredictor

GRID = Grid(1, 4, 4)


def masks():
    context = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]])
    targets = torch.tensor([[[8, 9], [12, 13]], [[0, 1], [14, 15]]])
    return Masks(context, targets)


@pytest.mark.parametrize("joint", [False, True])
def test_every_target_place_gets_its_own_prediction(joint):
    torch.manual_seed(0)
    predictor = MaskedPredictor(16, GRID, 8, 2, 2, joint=joint)
    context = torch.randn(2, 4, 16)
    out = predictor(context, masks())
    assert out.shape == (2, 2, 2, 16)
    assert (out[0, 0, 0] - out[0, 0, 1]).abs().max() > 1e-4  # positions tell them apart
    changed = torch.cat([torch.randn(1, 4, 16), context[1:]])
    other = predictor(changed, masks())
    assert not torch.equal(out[0], other[0]) and torch.equal(out[1], other[1])  # and its own context matters


def test_separate_blocks_do_not_see_each_other_and_joint_ones_do():
    torch.manual_seed(0)
    context, moved = torch.randn(2, 4, 16), masks().targets.clone()
    moved[:, 1] = torch.tensor([10, 11])
    for joint, same in ((False, True), (True, False)):
        predictor = MaskedPredictor(16, GRID, 8, 2, 2, joint=joint).double()
        before = predictor(context.double(), masks())[:, 0]
        after = predictor(context.double(), masks()._replace(targets=moved))[:, 0]
        assert torch.allclose(before, after, atol=1e-9) is same

import pytest
import torch

from jepa_pretrain.contracts import UserError
from jepa_pretrain.evals.interval import wilson
from jepa_pretrain.evals.splits import few, holdout


def test_holdout_is_stratified_and_disjoint():
    label = torch.tensor([0] * 50 + [1] * 20 + [2] * 2)
    fit, held = holdout(label, 0.1, seed=0)
    assert sorted(fit.tolist() + held.tolist()) == list(range(72))
    assert torch.bincount(label[held]).tolist() == [5, 2, 1]
    assert not torch.equal(held, holdout(label, 0.1, seed=1)[1])


def test_few_takes_as_many_of_each():
    label = torch.arange(30) % 3
    assert torch.bincount(label[few(label, 4, seed=0)]).tolist() == [4, 4, 4]
    with pytest.raises(UserError, match="at least 2"):
        few(label, 1, seed=0)


def test_wilson_by_published_values():
    """Newcombe 1998, table I, method 3: 81 of 263 and 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(20, 20)[1] == 1

import math

import pytest
import torch

from jepa_pretrain.evals.rank import dimension_std, effective_rank, rankme


def test_rankme_by_hand():
    features = torch.diag(torch.tensor([3.0, 1.0, 0.0]))  # p = (3/4, 1/4, 0)
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert rankme(features).item() == pytest.approx(expected, rel=1e-4)


def test_rankme_bounds():
    orthogonal = torch.linalg.qr(torch.randn(64, 16, generator=torch.Generator().manual_seed(0)))[0]
    assert rankme(orthogonal).item() == pytest.approx(16, rel=1e-3)
    assert rankme(torch.ones(64, 16)).item() == pytest.approx(1, abs=1e-3)
    assert rankme(torch.zeros(64, 16)).item() == pytest.approx(1, abs=1e-3)


def test_effective_rank_ignores_a_shared_offset():
    spread = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    assert rankme(spread + 100).item() < 2
    assert effective_rank(spread + 100).item() == pytest.approx(effective_rank(spread).item(), rel=1e-3)
    assert effective_rank(torch.ones(64, 16) * 7).item() == pytest.approx(1, abs=1e-3)


def test_rank_is_blind_to_scale():
    features = torch.randn(50, 10, generator=torch.Generator().manual_seed(1))
    assert rankme(features * 1e3).item() == pytest.approx(rankme(features).item(), rel=1e-4)


def test_dimension_std_by_hand():
    features = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
    assert dimension_std(features).tolist() == pytest.approx([math.sqrt(2), 0])


def test_not_finite_is_nan_and_no_crash():
    assert rankme(torch.full((4, 4), torch.inf)).isnan()
    assert effective_rank(torch.full((4, 4), torch.nan)).isnan()

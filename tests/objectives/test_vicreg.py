"""VICReg's terms against the formulas of the paper and the scaling of the official code."""

import pytest
import torch

from jepa_pretrain.contracts import UserError
from jepa_pretrain.objectives.vicreg import VarianceCovarianceLoss, VICRegLoss


def transcribed(x, y):
    """main_vicreg's loss, term by term, from the paper's equations with the code's scaling."""
    n, d = x.shape
    invariance = sum(float(((a - b) ** 2).sum()) for a, b in zip(x, y, strict=True)) / (n * d)
    std = cov = 0.0
    for z in (x, y):
        mean = [sum(z[:, j]) / n for j in range(d)]
        for j in range(d):
            var = sum((z[i, j] - mean[j]) ** 2 for i in range(n)) / (n - 1)
            std += max(0.0, 1.0 - float(var + 1e-4) ** 0.5) / d / 2
            for k in range(d):
                if k != j:
                    c = sum((z[i, j] - mean[j]) * (z[i, k] - mean[k]) for i in range(n)) / (n - 1)
                    cov += float(c) ** 2 / d
    return 25 * invariance + 25 * std + cov, invariance, std, cov


def test_against_the_formula():
    torch.manual_seed(0)
    x, y = 0.7 * torch.randn(6, 4), torch.randn(6, 4)
    loss, terms = VICRegLoss()([x, y])
    expected = transcribed(x.double(), y.double())
    got = [float(v) for v in (loss, terms["invariance"], terms["variance"], terms["covariance"])]
    assert got == pytest.approx(expected, rel=1e-4)


def test_more_views_average_over_pairs():
    torch.manual_seed(0)
    views = [torch.randn(8, 4) for _ in range(3)]
    pairs = [VICRegLoss()([views[i], views[j]])[0] for i, j in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(VICRegLoss()(views)[0], torch.stack(pairs).mean(), rtol=1e-4, atol=1e-4)


def test_fp32_inside_autocast():
    x = 300.0 * torch.randn(64, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = VICRegLoss()([x.bfloat16(), x.bfloat16() + 1])
    assert loss.dtype == torch.float32 and torch.isfinite(loss)


def test_collapse_costs():
    constant, spread = torch.ones(16, 4), torch.randn(4096, 4)
    assert VarianceCovarianceLoss()([constant])[0] > 0.9
    assert VarianceCovarianceLoss()([2 * spread])[0] < 0.1


def test_one_sample_is_refused():
    with pytest.raises(UserError, match="at least 2"):
        VICRegLoss()([torch.randn(1, 4), torch.randn(1, 4)])

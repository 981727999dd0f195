import pytest
import torch
from sklearn.linear_model import Ridge as Reference
from sklearn.metrics import r2_score

from jepa_pretrain.evals.heads import inputs
from jepa_pretrain.evals.ridge import r2, solve


def noisy(n, width, noise=0.1, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width, generator=rng) + 3
    weight = torch.randn(width, 2, generator=torch.Generator().manual_seed(9))
    return x, x @ weight / width**0.5 + noise * torch.randn(n, 2, generator=rng)


@pytest.mark.parametrize("width", [5, 80])  # fewer and more dimensions than rows
def test_solution_is_scikit_learns(width):
    x, y = noisy(40, width)
    seen = inputs(x.double(), batch_norm=False)(x.double())
    for penalty, ours in zip((1e-4, 1e-1), solve(x, y, (1e-4, 1e-1)), strict=True):
        theirs = Reference(alpha=40 * penalty).fit(seen.numpy(), y.double().numpy())
        assert torch.allclose(ours(x), torch.from_numpy(theirs.predict(seen.numpy())), atol=1e-6)


def test_r2_is_scikit_learns_and_its_interval_narrows():
    y = noisy(400, 3)[1]
    guess = y + 0.5 * torch.randn(400, 2, generator=torch.Generator().manual_seed(1))
    score, (low, high) = r2(guess, y)
    assert score == pytest.approx(r2_score(y.numpy(), guess.numpy()), abs=1e-6)
    assert low < score < high
    few_low, few_high = r2(guess[:40], y[:40])[1]
    assert high - low < 0.6 * (few_high - few_low)
    assert r2(y.mean(0).expand_as(y), y)[0] == pytest.approx(0.0, abs=1e-6)

"""SIGReg's statistic against the formula of the paper, and what it says of distributions."""

import cmath
import math

import pytest
import torch

from jepa_pretrain.objectives.sigreg import SIGReg, epps_pulley


def transcribed(sample):
    """n times the integral of |phi_n(t) - phi(t)|^2 w(t), 17 points on [-5, 5], trapezoids; complex and by hand."""
    n, width = len(sample), 10 / 16
    total = 0.0
    for k in range(17):
        t = -5 + k * width
        phi = sum(cmath.exp(1j * t * x) for x in sample) / n
        normal = math.exp(-t * t / 2)
        total += (0.5 if k in (0, 16) else 1.0) * width * abs(phi - normal) ** 2 * normal
    return n * total


def test_against_the_formula():
    torch.manual_seed(0)
    x = torch.randn(20, 3) * torch.tensor([1.0, 0.3, 2.0]) + torch.tensor([0.0, 1.0, -0.5])
    expected = [transcribed(x[:, i].tolist()) for i in range(3)]
    assert epps_pulley(x).tolist() == pytest.approx(expected, rel=1e-4)


def test_the_loss_is_the_mean_over_unit_directions_and_views():
    views = [torch.randn(16, 5), torch.randn(16, 5) * 2]
    torch.manual_seed(3)
    loss, terms = SIGReg(directions=7)(views)
    torch.manual_seed(3)
    directions = torch.randn(5, 7)
    directions = directions / directions.norm(dim=0)
    expected = sum(transcribed((z @ d).tolist()) for z in views for d in directions.T) / 14
    assert float(loss) == pytest.approx(expected, rel=1e-4) and terms["sigreg"] == loss


def test_descending_it_makes_a_normal_cloud_of_a_collapsed_one():
    torch.manual_seed(0)
    z = torch.nn.Parameter(0.01 * torch.randn(256, 4) @ torch.diag(torch.tensor([1.0, 1.0, 0.1, 0.0])) + 2.0)
    z.data[:, 3] += 0.01 * torch.randn(256)
    optimizer, objective = torch.optim.Adam([z], 0.08), SIGReg(directions=64)
    first = float(objective([z])[0].detach())
    for _ in range(120):
        loss, _ = objective([z])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.02 * first
    assert z.mean(0).abs().max() < 0.15
    assert torch.allclose(torch.cov(z.T.detach()), torch.eye(4), atol=0.2)

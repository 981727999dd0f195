"""Latent variables: costs against their formulas, straight-through gradients, arg-min, and draws."""

import math

import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

from jepa_pretrain.models.latent import Discrete, Gaussian, Sparse

B, N, D = 4, 2, 6
torch.manual_seed(0)
KINDS = [Discrete(D, 3), Gaussian(D, 3), Sparse(D, 3)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def named(kind):
    return type(kind).__name__


def states(seed=0, batch=B):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(batch, N, D, generator=rng), torch.randn(batch, N, D, generator=rng)


def test_discrete_costs_the_kl_of_its_learned_prior():
    made, (before, after) = Discrete(D, 3), states()
    _, cost = made(before, after)
    q = Categorical(logits=made.posterior(torch.cat([before.mean(1), after.mean(1)], -1)))
    p = Categorical(logits=made.prior(before.mean(1)))
    torch.testing.assert_close(cost, kl_divergence(q, p))
    for value in range(3):
        one_hot = torch.eye(3)[value].expand(B, 3)
        torch.testing.assert_close(made.penalty(one_hot, before), -p.log_prob(torch.tensor(value)))


def test_gaussian_costs_the_kl_of_its_learned_prior():
    made, (before, after) = Gaussian(D, 3), states()
    _, cost = made(before, after)
    mean, raw = made.posterior(torch.cat([before.mean(1), after.mean(1)], -1)).chunk(2, -1)
    prior_mean, prior_raw = made.prior(before.mean(1)).chunk(2, -1)
    q = Normal(mean, (4 * torch.tanh(raw / 4)).exp())
    p = Normal(prior_mean, (4 * torch.tanh(prior_raw / 4)).exp())
    torch.testing.assert_close(cost, kl_divergence(q, p).sum(-1))
    z = torch.randn(B, 3)
    constant = p.scale.log().sum(-1) + 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(made.penalty(z, before), -p.log_prob(z).sum(-1) - constant)


def test_sparse_costs_its_absolute_values():
    made, (before, after) = Sparse(D, 3).eval(), states()
    z, cost = made(before, after)
    torch.testing.assert_close(cost, z.abs().sum(-1))
    noisy = made.train()(before, after)[0]
    assert 0.05 < (noisy - z).std() < 0.9


def test_the_gradient_passes_straight_through_the_choice():
    made, (before, after) = Discrete(D, 3).eval(), states()
    after = after.requires_grad_(True)
    z, _ = made(before, after)
    torch.testing.assert_close(z.detach().sort(-1).values, torch.tensor([0.0, 0.0, 1.0]).expand(B, 3))
    direction = torch.randn(B, 3)
    (got,) = torch.autograd.grad((z * direction).sum(), after, retain_graph=True)
    soft = made.posterior(torch.cat([before.mean(1), after.mean(1)], -1)).softmax(-1)
    (expected,) = torch.autograd.grad((soft * direction).sum(), after)
    torch.testing.assert_close(got, expected)
    assert got.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_inference_finds_a_lower_energy_than_amortised(kind):
    made, (before, after) = kind.train(), states()
    target = torch.eye(3)[torch.tensor([0, 1, 2, 1])] * 1.0

    def distance(z):
        return (z - target).square().sum(-1)

    def energy(z):
        return distance(z) + made.weight * made.penalty(z, before)

    best, start = made.infer(distance, before, after), made.amortised(before, after)
    assert made.training and (energy(best) <= energy(start)).all() and energy(best).sum() < 0.7 * energy(start).sum()
    if isinstance(made, Discrete):
        every = torch.stack([energy(torch.eye(3)[i].expand(B, 3)) for i in range(3)])
        torch.testing.assert_close(energy(best), every.min(0).values)
    else:  # stationary: no small step from there is lower by much
        nudged = [energy(best + 0.05 * torch.randn_like(best)) for _ in range(20)]
        assert all((value > energy(best) - 1e-3).all() for value in nudged)
    assert all(p.grad is None for p in made.parameters())


def test_draws_follow_the_gibbs_distribution():
    torch.manual_seed(0)
    before = states()[0][:1].expand(20000, N, D)
    discrete, gaussian, sparse = Discrete(D, 3), Gaussian(D, 3), Sparse(D, 3)
    for p in [*discrete.prior.parameters(), *gaussian.prior.parameters()]:
        torch.nn.init.normal_(p, std=0.3)
    with torch.no_grad():
        weights = torch.stack([(-discrete.penalty(torch.eye(3)[i][None], before[:1])).exp() for i in range(3)])[:, 0]
        torch.testing.assert_close(discrete.draw(before).mean(0), weights / weights.sum(), atol=0.02, rtol=0)
        # a standard normal squared, summed over 3 and halved: 1.5 on average; at the mean the penalty is zero
        z = gaussian.draw(before)
        assert abs(gaussian.penalty(z, before).mean() - 1.5) < 0.05
        assert gaussian.penalty(z.mean(0, keepdim=True), before[:1]).item() < 0.01
        drawn = sparse.draw(before)
        assert abs(drawn.mean()) < 0.03 and abs(drawn.abs().mean() - 1) < 0.03 and abs(drawn.var() - 2) < 0.15

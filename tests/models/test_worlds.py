"""Worlds that are known: a fork, a copy that must not be made, and a sum of actions."""

import pytest
import torch
import torch.nn.functional as F

from jepa_pretrain.models.abstraction import MacroActions
from jepa_pretrain.models.energy import auroc, between, future_energy
from jepa_pretrain.models.latent import Discrete, Gaussian, Latent
from jepa_pretrain.models.level import Level
from jepa_pretrain.models.temporal import TemporalPredictor

D = 2


def level(latent: Latent | None = None, **options) -> Level:
    """Prediction over pooled states that are given, so that nothing but it is learned."""
    torch.manual_seed(0)
    actions = options["macro"].width if "macro" in options else 0
    width = latent.width if latent else 0
    predictor = TemporalPredictor(D, (1, 1), actions, width, width=32, depth=1, heads=2, residual=True)
    return Level(predictor, None, latent=latent, **options)


def learn(made: Level, world, steps: int) -> None:
    """Teacher forcing on `world(batch)` -> states (B, L, 1, D), lower actions or None; z's cost comes in slowly."""
    optimizer = torch.optim.AdamW(made.parameters(), 4e-3, weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - step / steps)
        states, actions = world(64)
        z, cost = None, torch.zeros(())
        if made.latent:
            z, cost = made.latent(states[:, :-1], states[:, 1:])
        own = made.transitions(actions, None, states.shape[1] - 1)
        loss = F.mse_loss(made.predictor(states[:, :-1], own, z), states[:, 1:])
        loss = loss + min(1.0, 2 * step / steps) * (made.latent.weight if made.latent else 0.0) * cost.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    made.eval()


def fork(batch: int):
    """One unit to the left or to the right, at random."""
    before = torch.randn(batch, 1, 1, D)
    side = (torch.rand(batch, 1, 1) < 0.5) * 2.0 - 1.0
    return torch.cat([before, before + torch.stack([side, 0 * side], -1)], 1), None


def judged(made: Level):
    """Energies of left, right and the middle, each (B,)."""
    before = torch.randn(64, 1, 1, D)
    way = torch.tensor([1.0, 0.0])
    line = between(made, before, before[:, 0] - way, before[:, 0] + way, points=3)
    return line[:, 0].mean(), line[:, 2].mean(), line[:, 1].mean()


def test_at_a_fork_z_covers_both_futures_and_without_it_they_are_averaged():
    made = level(Discrete(D, 4, weight=0.02, hidden=32))
    learn(made, fork, 400)
    left, right, middle = judged(made)
    assert max(left, right) < 0.12 and middle > 3 * max(left, right), (left, right, middle)
    before = torch.zeros(200, 1, 1, D)
    with torch.no_grad():  # drawn from the prior, the prediction goes left and right, about as often
        drawn = made.predictor(before, None, made.latent.draw(before))[:, 0, 0, 0]
    assert 50 < (drawn > 0.6).sum() < 150 and 50 < (drawn < -0.6).sum() < 150
    averaging = level()
    learn(averaging, fork, 250)
    left, right, middle = judged(averaging)
    assert middle < 0.05 and min(left, right) > 0.3, (left, right, middle)


def turn(batch: int):
    """A rotation with some noise, of deviation a half."""
    before = torch.randn(batch, 1, D)
    after = torch.stack([-before[..., 1], before[..., 0]], -1) + 0.5 * torch.randn(batch, 1, D)
    return torch.stack([before, after], 1), None


@pytest.mark.parametrize("weight", [0.5, 0.0])
def test_without_its_penalty_z_is_a_copy_and_the_energy_collapses(weight):
    made = level(Gaussian(D, 2, weight=weight, hidden=32))
    learn(made, turn, 250)
    torch.manual_seed(1)
    states, _ = turn(128)
    true = future_energy(made, states[:, :1], states[:, 1:])
    shuffled = future_energy(made, states[:, :1], states[:, 1:].roll(1, 0))
    if weight:
        assert auroc(true, shuffled) > 0.85 and shuffled.median() > 1.0 and true.mean() < 0.4
    else:
        assert auroc(true, shuffled) < 0.83 and shuffled.median() < 0.05, "everything follows from everything"


def walk(batch: int):
    """Every fourth state of a walk s' = s + a, with all actions."""
    actions = 0.5 * torch.randn(batch, 8, D)
    way = torch.cat([torch.zeros(batch, 1, D), actions.cumsum(1)], 1) + torch.randn(batch, 1, D)
    return way[:, ::4].unsqueeze(2), actions


def test_a_macro_action_carries_what_the_lower_actions_did():
    torch.manual_seed(0)
    made = level(stride=4, macro=MacroActions(D, 4, width=4, hidden=32, heads=2))
    learn(made, walk, 250)
    states, actions = walk(256)
    with torch.no_grad():
        macro = made.transitions(actions, None, 2)  # (B, 2, 4)
        error = (made.predictor(states[:, :-1], macro) - states[:, 1:]).square().mean()
    moved = (states[:, 1:] - states[:, :-1]).squeeze(2)  # (B, 2, D), the sum of four actions
    assert macro.shape == (256, 2, 4) and error < 0.1 * moved.square().mean()
    x = F.pad(macro.flatten(0, 1), (0, 1), value=1.0)
    fit = x @ torch.linalg.lstsq(x, moved.flatten(0, 1)).solution
    assert (fit - moved.flatten(0, 1)).square().mean() < 0.1 * moved.var()

"""Prediction in time: who sees whom, rollouts, and a world whose dynamics are known."""

import pytest
import torch

from jepa_pretrain.contracts import UserError
from jepa_pretrain.models.temporal import TemporalPredictor

B, L, N, D, A, Z = 3, 5, 4, 6, 2, 3


def predictor(**options):
    """With weights that are not those of the beginning, where gates are zero and nobody sees anybody."""
    torch.manual_seed(0)
    made = TemporalPredictor(D, **({"grid": (2, 2), "width": 24, "depth": 2, "heads": 2} | options)).eval()
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return made


def inputs():
    rng = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=rng) for shape in ((B, L, N, D), (B, L, A), (B, L, Z))]


@pytest.mark.parametrize("part", [0, 1, 2], ids=["states", "actions", "latent"])
def test_the_future_does_not_change_predictions_of_the_past(part):
    model, given = predictor(actions=A, latent=Z), inputs()
    with torch.no_grad():
        before = model(*given)
        for moment in range(L):
            changed = [x.clone() for x in given]
            changed[part][:, moment] += 1.0
            after = model(*changed)
            assert torch.equal(before[:, :moment], after[:, :moment])
            assert all(not torch.allclose(before[:, t], after[:, t]) for t in range(moment, L)), "the past is seen"


def test_a_token_sees_the_others_of_its_moment():
    model, (states, *_) = predictor(), inputs()
    changed = states.clone()
    changed[:, 2, 3] += 1.0
    with torch.no_grad():
        assert not torch.allclose(model(states)[:, 2, 0], model(changed)[:, 2, 0])


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("context", [3, 16])
def test_rollout_is_step_by_step(residual, context):
    model, (states, actions, z) = predictor(actions=A, latent=Z, residual=residual, context=context), inputs()
    with torch.no_grad():
        rolled = model.rollout(states[:, :2], actions, z)  # 4 steps on from the second moment
        known = states[:, :2]
        for step in range(4):
            start = max(0, step + 2 - context)
            following = model(known[:, start:], actions[:, start : step + 2], z[:, start : step + 2])[:, -1:]
            torch.testing.assert_close(rolled[:, step], following[:, 0], rtol=0, atol=0)
            known = torch.cat([known, following], 1)
        assert rolled.shape == (B, 4, N, D)
        one = predictor(residual=residual).rollout(states[:, 0], horizon=3)
        assert one.shape == (B, 3, N, D)


def test_a_fresh_residual_predictor_says_that_nothing_changes():
    torch.manual_seed(0)
    model, (states, *_) = TemporalPredictor(D, (2, 2), width=24, depth=1, heads=2, residual=True), inputs()
    change = (model(states) - states).std()
    assert change < 0.2 * states.std()


def rotation(angle=0.4):
    return torch.tensor([[torch.tensor(angle).cos(), -torch.tensor(angle).sin()],
                         [torch.tensor(angle).sin(), torch.tensor(angle).cos()]])  # fmt: skip


def linear_world(batch, length, rng):
    """s' = R s + a, pooled states of width 2."""
    s, states, actions = torch.randn(batch, 2, generator=rng), [], []
    for _ in range(length):
        a = 0.3 * torch.randn(batch, 2, generator=rng)
        states.append(s), actions.append(a)
        s = s @ rotation().T + a
    return torch.stack(states, 1).unsqueeze(2), torch.stack(actions, 1)  # (B, L, 1, 2), (B, L, 2)


def test_known_world():
    """A linear system: after a few hundred steps the next state is predicted to a fiftieth of how far it moves."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    model = TemporalPredictor(2, actions=2, width=32, depth=1, heads=2, residual=True)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(150):
        states, actions = linear_world(32, 4, rng)
        one = (model(states[:, :-1], actions[:, :-1]) - states[:, 1:]).square().mean()
        rolled = (model.rollout(states[:, 0], actions[:, :-1]) - states[:, 1:]).square().mean()
        optimizer.zero_grad()
        (one + rolled).backward()
        optimizer.step()
    states, actions = linear_world(256, 4, rng)
    with torch.no_grad():
        one = (model(states[:, :-1], actions[:, :-1]) - states[:, 1:]).square().mean()
        rolled = (model.rollout(states[:, 0], actions[:, :-1])[:, -1] - states[:, -1]).square().mean()
        still = (states[:, :-1] - states[:, 1:]).square().mean()
    assert one < 0.02 * still and rolled < 0.1 * still, (one, rolled, still)


def test_mistakes_are_explained():
    model, (states, actions, z) = predictor(actions=A, context=4), inputs()
    with pytest.raises(UserError, match="context of 4"):
        model(states, actions)
    with pytest.raises(UserError, match="actions of width 2, got none"):
        model(states[:, :2])
    with pytest.raises(UserError, match="latent variables of width 0, got 3"):
        model(states[:, :2], actions[:, :2], z[:, :2])
    with pytest.raises(UserError, match="plan"):
        predictor().rollout(states)
    with pytest.raises(UserError, match="heads"):
        TemporalPredictor(D, width=10, heads=3)

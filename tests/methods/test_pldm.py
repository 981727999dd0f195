"""The world model's training: the loss against its formula, kept features, and that it learns a known world."""

import pytest
import torch

from jepa_pretrain.contracts import Batch, Episode, UserError
from jepa_pretrain.data.windows import Windows
from jepa_pretrain.methods.pldm import PLDM
from jepa_pretrain.models.dynamics import ResidualMLP
from jepa_pretrain.models.frames import Pixels, SmallConv
from jepa_pretrain.models.world import World
from jepa_pretrain.objectives.sigreg import SIGReg
from jepa_pretrain.objectives.vicreg import VarianceCovarianceLoss, covariance, variance
from jepa_pretrain.optim import AdamW
from jepa_pretrain.schedules import Constant

B, L, BLOCK, A, D = 6, 3, 2, 2, 8


def method(objective=None, frozen=True, encoder=None, frames=1, **options):
    torch.manual_seed(0)
    dynamics = ResidualMLP(D, A * BLOCK, hidden=16)
    world = World(encoder or SmallConv(16, 8), dynamics, D, (16,), BLOCK, frozen, frames=frames)
    objective = objective or VarianceCovarianceLoss(16.0, 8.0)
    return PLDM(world, objective, AdamW(Constant(1e-3), Constant(0.0)), **options)


def batch(actions=True):
    rng = torch.Generator().manual_seed(1)
    clip = torch.randint(0, 256, (B, 3, L * BLOCK + 1, 16, 16), dtype=torch.uint8, generator=rng)
    done = torch.randn(B, L * BLOCK + 1, A, generator=rng) if actions else None
    return Batch([clip], [], torch.full((B,), -1), [str(i) for i in range(B)], done)


def test_the_loss_is_the_formula():
    made, data = method(similarity=12.0, inverse=0.5).eval(), batch()
    clip, a = data.views[0], data.actions
    s = [made.world.encode(clip[:, :, BLOCK * t])[:, 0] for t in range(L + 1)]
    joined = [torch.cat([a[:, BLOCK * t], a[:, BLOCK * t + 1]], dim=1) for t in range(L)]
    predicted, total = s[0], 0.0
    for t in range(L):
        predicted = predicted + made.world.dynamics.net(torch.cat([predicted, joined[t]], dim=1))
        total = total + (predicted - s[t + 1]).square().mean() / L
        total = total + 12.0 * (s[t + 1] - s[t]).square().mean() / L
        total = total + 0.5 * (made.inverse(torch.cat([s[t], s[t + 1]], dim=1)) - joined[t]).square().mean() / L
    for one in s:
        total = total + (16 * variance(one) + 8 * covariance(one)) / (L + 1)
    torch.testing.assert_close(made.step(data).loss, total)


def test_single_pictures_of_a_clip_are_joined():
    """As `fit` reads them, without what lies before a clip: its first moment is looked back on alone."""
    made, data = method(frames=2).eval(), batch()
    observations = [data.views[0][:, :, [max(t - BLOCK, 0), t]].transpose(1, 2).flatten(1, 2) for t in range(7)]
    states, actions = made._moments(data)
    wanted = torch.stack([made.world.encode(observations[t]) for t in (2, 4, 6)], 1)
    torch.testing.assert_close(states, wanted)
    assert torch.equal(actions, data.actions[:, 2:6].unflatten(1, (2, 2)).flatten(2))
    given = data._replace(views=[torch.stack(observations, 2)])  # as `agent train` reads them
    torch.testing.assert_close(made._moments(given)[0][:, 1:], wanted)
    assert made._moments(given)[1].shape[1] == 3


def test_contract():
    made = method(frozen=False)
    output = made.step(batch())
    assert output.loss.requires_grad and output.features.shape == (B, D)
    assert not output.features.requires_grad and not any(t.requires_grad for t in output.terms.values())
    output.loss.backward()
    assert not [name for name, p in made.named_parameters() if p.requires_grad and p.grad is None]
    assert made.exported is made.world
    lewm = method(SIGReg(8), inverse=0.0, similarity=0.0, weight=0.1)
    assert lewm.inverse is None and "inverse" not in lewm.step(batch()).terms


def recordings(count=24, frames=12):
    """A dot of one pixel in eight that does as it is told."""
    rng = torch.Generator().manual_seed(2)
    found = []
    for _ in range(count):
        actions = 2 * torch.rand(frames - 1, A, generator=rng) - 1
        place = torch.cat([torch.full((1, 2), 6.0), actions]).cumsum(0).clamp(0, 12)
        drawn = torch.zeros(frames, 3, 16, 16, dtype=torch.uint8)
        for frame, (x, y) in zip(drawn, place.round().long().tolist(), strict=True):
            frame[:, y : y + 4, x : x + 4] = 255
        found.append(Episode(drawn, actions, place, place, {}))
    return found


def test_kept_features_train_as_frames_do():
    episodes, made = recordings(4), method().eval()
    frames = torch.cat([one.frames for one in episodes])
    with torch.no_grad():
        features = made.world.features(frames)
    starts = torch.tensor([0, 3, 14, 40])
    losses = [
        made.step(Windows(episodes, seen, BLOCK, L * BLOCK, 4, 0).batch(starts)).loss for seen in (frames, features)
    ]
    torch.testing.assert_close(*losses)


def test_windows_give_what_happened_in_one_episode():
    episodes = recordings(5, 9)
    frames = torch.cat([one.frames for one in episodes])
    every = Windows(episodes, frames, BLOCK, 6, 5, seed=0)
    assert len(every) == 3  # three starts in each of five episodes
    first, second = ([key for one in every for key in one.key] for _ in range(2))
    assert sorted(first) == sorted(second) and first != second
    for one in every:
        for row, key in enumerate(one.key):
            episode, at = divmod(int(key), 9)
            assert at < 3
            assert torch.equal(one.views[0][row].transpose(0, 1), episodes[episode].frames[at : at + 7])
            assert torch.equal(one.actions[row], episodes[episode].actions[at : at + 6])
    with pytest.raises(UserError, match="15 stretches of 6 steps, a batch needs 16"):
        Windows(episodes, frames, BLOCK, 6, 16, seed=0)


def test_it_learns_what_actions_do():
    """Its predictions beat standing still, and those of a model that is told nothing of the actions."""
    episodes = recordings()
    frames = torch.cat([one.frames for one in episodes])
    errors = []
    for told in (1.0, 0.0):
        made = method(encoder=Pixels(16, 8))
        windows = Windows(episodes, made.world.features(frames), BLOCK, L * BLOCK, 32, 0)
        windows.actions = windows.actions * told
        optimizer = torch.optim.AdamW(made.parameters(), 3e-3)
        for _ in range(25):
            for one in windows:
                output = made.step(one)
                optimizer.zero_grad()
                output.loss.backward()
                optimizer.step()
        errors.append(float(output.terms["prediction"] / output.terms["still"]))
    assert errors[0] < 0.65 and errors[0] < 0.75 * errors[1], errors


def test_mistakes_are_explained():
    with pytest.raises(UserError, match="actions of width 4 per step, the data have none"):
        method().step(batch(actions=False))
    with pytest.raises(UserError, match="actions of width 4 per step, the data have 3 numbers, 2 times"):
        method().step(batch()._replace(actions=torch.zeros(B, 7, 3)))
    with pytest.raises(UserError, match="hold no step of 2"):
        method().step(batch()._replace(views=[batch().views[0][:, :, :2]]))

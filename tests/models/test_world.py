"""World models: blocks of actions, rollouts that are steps repeated, frozen encoders, export and back."""

import json

import pytest
import torch

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.export import write
from jepa_pretrain.interop.frozen import FrozenEncoder
from jepa_pretrain.models.dynamics import ResidualMLP
from jepa_pretrain.models.frames import Pixels, SmallConv
from jepa_pretrain.models.temporal import TemporalPredictor
from jepa_pretrain.models.world import World

D, A, BLOCK = 8, 2, 3


def temporal():
    return TemporalPredictor(D, actions=A * BLOCK, width=16, depth=1, heads=2, residual=True)


def make(dynamics=None, **options):
    torch.manual_seed(0)
    dynamics = dynamics or ResidualMLP(D, A * BLOCK, hidden=16)
    bounds = {"low": (-1.0, -2.0), "high": (1.0, 2.0)}
    return World(SmallConv(16, 8), dynamics, D, (16,), BLOCK, **bounds | options).eval()


@pytest.mark.parametrize("dynamics", [None, temporal], ids=["mlp", "transformer"])
def test_a_rollout_follows_the_actions(dynamics):
    world = make(dynamics() if dynamics else None)
    if dynamics:  # its gates begin at nought, which lets no action through
        torch.nn.init.normal_(world.dynamics.blocks[0].modulation[1].weight)
    state, plan = torch.randn(4, 1, D), torch.randn(4, 5, A * BLOCK)
    rolled = world.rollout(state, plan)
    assert rolled.shape == (4, 5, 1, D)
    torch.testing.assert_close(rolled[:, 0], world.step(state, plan[:, 0]))
    other = plan.clone()
    other[:, 3] += 1
    changed = (world.rollout(state, other) - rolled).abs().amax((0, 2, 3))
    assert changed[:3].max() == 0 and changed[3:].min() > 1e-5
    if dynamics is None:  # it has no memory, so steps repeated are the rollout
        for i in range(5):
            state = world.step(state, plan[:, i])
            torch.testing.assert_close(rolled[:, i], state)


def test_faint_features_count_as_much(tmp_path):
    world, frames = make(standardise=True), torch.randint(256, (64, 3, 16, 16), dtype=torch.uint8)
    raw = make().features(frames)
    torch.testing.assert_close(world.features(frames), raw)  # nothing is measured yet
    raw[:, 0] *= 100  # glaring
    world.standard.fit(raw)
    told, spread = world.standard(raw), raw.std(0)
    assert spread[0] > 20 * spread[1:].max() and told.mean(0).abs().max() < 1e-4
    one = torch.tensor(1.0)
    torch.testing.assert_close(told.std(0)[spread > 0.1 * spread.mean()].max(), one, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(told.std(0)[0], one, rtol=1e-3, atol=1e-3)
    world.standard.fit(make().features(frames))
    write(world, tmp_path / "world", {})
    again = FrozenEncoder.load(str(tmp_path / "world")).encoder
    torch.testing.assert_close(again.encode(frames[:4]), world.encode(frames[:4]))
    assert not torch.allclose(make().encode(frames[:4]), world.encode(frames[:4]), atol=1e-2)
    with pytest.raises(UserError, match="standardise frozen ones"):
        make(frozen=False, standardise=True)


def test_frozen_means_frozen():
    world = make().train()
    assert not world.encoder.training and world.projector.training
    before = [p.clone() for p in world.encoder.parameters()]
    optimizer = torch.optim.SGD([p for p in world.parameters() if p.requires_grad], lr=1.0)
    frames = torch.randint(256, (6, 3, 16, 16), dtype=torch.uint8)
    world.encode(frames).square().sum().backward()
    optimizer.step()
    assert all(map(torch.equal, before, world.encoder.parameters()))
    assert world.projector[0].weight.grad.abs().sum() > 0
    free = make(frozen=False).train()
    free.encode(frames).square().sum().backward()
    assert all(p.grad is not None for p in free.encoder.parameters())


@pytest.mark.parametrize("dynamics", [None, temporal], ids=["mlp", "transformer"])
def test_an_exported_world_comes_back(tmp_path, dynamics):
    world = make(dynamics() if dynamics else None)
    found = FrozenEncoder.load(write(world, tmp_path / "world", {})).encoder
    assert isinstance(found, World) and (found.low, found.block) == ((-1.0, -2.0), BLOCK)
    frames, plan = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8), torch.randn(2, 2, A * BLOCK)
    state = world.encode(frames)
    assert torch.equal(found.encode(frames), state)
    assert torch.equal(found.rollout(state, plan), world.rollout(state, plan))


def test_a_state_of_several_pictures(tmp_path):
    world = make(frames=2)
    old, new = torch.randint(256, (2, 4, 3, 16, 16), dtype=torch.uint8)
    both = torch.cat([old, new], dim=1)
    state = world.encode(both)
    assert not torch.allclose(state, world.encode(both.flip(1)))
    torch.testing.assert_close(world(new.unsqueeze(2)), world.encode(torch.cat([new, new], dim=1)))  # as if at rest
    assert [one.shape[1] for one in world.forward_layers(new.unsqueeze(2), 2)] == [16, 1]
    found = FrozenEncoder.load(write(world, tmp_path / "world", {})).encoder
    assert found.frames == 2 and torch.equal(found.encode(both), state)
    with pytest.raises(UserError, match=r"takes frames \(B, 6, 16, 16\): 2 pictures in a row, found \(4, 3, 16, 16\)"):
        world.encode(new)
    with pytest.raises(UserError, match="one picture or more, not 0"):
        make(frames=0)


def test_folders_of_before_several_pictures_load(tmp_path):
    folder = write(make(), tmp_path / "world", {})
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"]["args"].pop("frames") == 1
    (folder / "config.json").write_text(json.dumps(config))
    found, frames = FrozenEncoder.load(folder).encoder, torch.rand(2, 3, 16, 16)
    assert torch.equal(found.encode(frames), make().encode(frames))


def test_pixels_keep_the_picture():
    encoder = Pixels(32, 16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    picture = torch.rand(1, 3, 16, 16)
    large = picture.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(encoder(large[:, :, None]).transpose(1, 2).unflatten(2, (16, 16)), picture)


def test_mistakes_are_explained():
    with pytest.raises(UserError, match="states of width 4, the world's is 8"):
        make(ResidualMLP(4, A * BLOCK))
    with pytest.raises(UserError, match="block of 3 environment steps does not divide 4"):
        make(ResidualMLP(D, 4))
    with pytest.raises(UserError, match="1 low and 2 high bounds for 2 action numbers"):
        make(low=(1.0,))
    with pytest.raises(UserError, match=r"takes frames \(B, 3, 16, 16\), found \(2, 3, 8, 8\)"):
        make().encode(torch.zeros(2, 3, 8, 8))
    with pytest.raises(UserError, match="actions of width 6, got 2"):
        make().step(torch.zeros(1, 1, D), torch.zeros(1, 2))

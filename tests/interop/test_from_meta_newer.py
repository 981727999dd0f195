"""V-JEPA 2-AC's and V-JEPA 2.1's released files, by state dicts of the published names and shapes."""

from pathlib import Path

import pytest
import theirs
import theirs_newer
import torch
from scipy.spatial.transform import Rotation

from jepa_pretrain import FrozenEncoder
from jepa_pretrain.contracts import Batch, Masks, UserError
from jepa_pretrain.interop.action_world import load_action_world
from jepa_pretrain.interop.beginning import begin_from
from jepa_pretrain.interop.reading import read_parts
from jepa_pretrain.interop.spec import parse
from jepa_pretrain.methods.ijepa import IJEPA
from jepa_pretrain.models.action_world import moved
from jepa_pretrain.models.multilevel import MultilevelPredictor, MultilevelViT
from jepa_pretrain.objectives.dense import DenseLoss
from jepa_pretrain.ops import gather_tokens
from jepa_pretrain.optim import AdamW
from jepa_pretrain.schedules import Constant

ROOT = Path(__file__).resolve().parents[2]
MEAN, STD = (torch.tensor(one).view(3, 1, 1, 1) for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
SEEN, HIDDEN = torch.tensor([[0, 5, 3], [1, 2, 8]]), torch.tensor([[4, 16], [7, 0]])


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5 * max(1.0, expected.abs().max().item()), rtol=0)


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    """V-JEPA 2-AC's file, positions in its encoder as in some, and what it holds."""
    torch.manual_seed(0)
    encoder = theirs.transformer_state(32, 128, (2, 4, 4), 2) | {"pos_embed": torch.randn(1, 32 * 9, 32)}
    head = theirs_newer.action_state(32, 48)
    path = tmp_path_factory.mktemp("meta") / "vjepa2-ac-vitg.pt"
    parts = {"encoder": encoder, "target_encoder": encoder, "predictor": head}
    torch.save({name: theirs.behind("module.", one) for name, one in parts.items()} | {"epoch": 315}, path)
    return f"{path}?heads=2&predictor_heads=2&image_size=12&frames=8", encoder, head


def seen_by_theirs(encoder, frames):
    """Frames (B, 3, T, H, W) -> layer-normed tokens (B, T, N, D), each frame twice."""
    tokens = [
        theirs.vit(encoder, ((one - MEAN) / STD).repeat(1, 1, 2, 1, 1), 2, rotary=True) for one in frames.split(1, 2)
    ]
    return torch.nn.functional.layer_norm(torch.stack(tokens, 1), (32,))


@pytest.mark.parametrize("camera", [False, True])
def test_the_action_conditioned_predictor_teacher_forced(robot, camera):
    spec, encoder, head = robot
    world = load_action_world(spec + "&extrinsics=1" * camera)
    frames, actions, poses = torch.rand(2, 3, 3, 12, 12), torch.randn(2, 3, 7), torch.randn(2, 3, 7)
    extrinsics = torch.randn(2, 3, 6) if camera else None
    states = seen_by_theirs(encoder, frames)
    close(world.encode(frames), states)
    close(
        world.predictor(states, actions, poses, extrinsics),
        theirs_newer.action_predictor(head, states, actions, poses, 2, 3, extrinsics),
    )
    with pytest.raises(UserError, match="takes extrinsics of"):
        world.predictor(states, actions, poses, None if camera else torch.randn(2, 3, 6))


def test_its_rollout_is_theirs_step_by_step(robot):
    spec, encoder, head = robot
    plan, pose = torch.randn(2, 3, 7) * 0.3, torch.randn(2, 1, 7) * 0.3
    states = seen_by_theirs(encoder, torch.rand(2, 3, 1, 12, 12))
    found, poses = torch.hub.load(str(ROOT), "action_world", spec, source="local").rollout(states, pose, plan)
    for i in range(3):
        following = theirs_newer.action_predictor(head, states, plan[:, : i + 1], pose, 2, 3)[:, -1:]
        states = torch.cat([states, torch.nn.functional.layer_norm(following, (32,))], 1)
        turns = [Rotation.from_euler("xyz", one[:, i if one is plan else -1, 3:6].numpy()) for one in (plan, pose)]
        angles = torch.from_numpy((turns[0] * turns[1]).as_euler("xyz")).float()
        last, action = pose[:, -1], plan[:, i]
        grip = (last[:, 6:] + action[:, 6:]).clamp(0, 1)
        pose = torch.cat([pose, torch.cat([last[:, :3] + action[:, :3], angles, grip], 1)[:, None]], 1)
    close(found, states[:, 1:])
    close(poses, pose[:, 1:])


def test_a_long_rollout_looks_back_on_what_the_predictor_can(robot):
    world = load_action_world(robot[0])  # four moments
    states, pose, plan = torch.randn(1, 1, 9, 32), torch.zeros(1, 1, 7), torch.randn(1, 6, 7) * 0.1
    found, poses = world.rollout(states, pose, plan)
    assert found.shape == (1, 6, 9, 32)
    before, where = torch.cat([states, found], 1), torch.cat([pose, poses], 1)
    again, _ = world.rollout(before[:, 2:6], where[:, 2:6], plan[:, 2:])
    close(again, found[:, 5:])
    assert torch.equal(moved(pose, plan[:, :1]), poses[:, :1])


def test_the_encoder_alone_and_files_without_such_a_predictor(robot, tmp_path):
    spec, encoder, head = robot
    frozen, clip = FrozenEncoder.load(spec), torch.rand(1, 3, 8, 12, 12)
    close(frozen(clip), theirs.vit(encoder, (clip - MEAN) / STD, 2, rotary=True))
    assert any("load_action_world" in note for note in frozen.provenance["notes"])
    assert read_parts(parse(spec)).predictor is None  # nothing that a masked predictor could begin with
    torch.save({"encoder": encoder}, tmp_path / "plain.pt")
    options = spec.partition("?")[2]
    with pytest.raises(UserError, match=r"expected V-JEPA 2-AC, found V-JEPA 2 \(Meta\)"):
        load_action_world(f"vjepa2:{tmp_path}/plain.pt?{options}")
    torch.save({"encoder": encoder, "predictor": head | {"odd": torch.zeros(1)}}, tmp_path / "odd.pt")
    with pytest.raises(UserError, match="predictor: weights missing: none; not of this architecture: odd"):
        load_action_world(f"{tmp_path}/odd.pt?{options}")
    del head["predictor_embed.weight"]
    torch.save({"encoder": encoder, "predictor": head}, tmp_path / "half.pt")
    with pytest.raises(UserError, match=r"missing: predictor_embed\.weight; half a predictor is none"):
        load_action_world(f"{tmp_path}/half.pt?{options}")


def multilevel(path, patch, levels, out, handed):
    torch.manual_seed(levels)
    encoder = theirs_newer.multilevel_state(24, patch)
    head = theirs_newer.multilevel_predictor_state(24, 36, levels, out)
    other = {name: one * 1.1 for name, one in encoder.items()}
    parts = {"encoder": other, handed: encoder, "predictor": head}
    torch.save({name: theirs.behind("module.backbone.", one) for name, one in parts.items()}, path)
    return encoder, other, head


@pytest.mark.parametrize(
    ("patch", "levels", "out", "handed"), [(16, 4, 96, "target_encoder"), (14, 1, 40, "ema_encoder")]
)
def test_vjepa21_every_token_of_every_level(tmp_path, patch, levels, out, handed):
    encoder, other, head = multilevel(tmp_path / "in.pt", patch, levels, out, handed)
    spec = f"{tmp_path}/in.pt?heads=2&predictor_heads=2&image_size={3 * patch}&frames=4"
    frozen = FrozenEncoder.load(spec)
    assert frozen.provenance["origin"] == "V-JEPA 2.1 (Meta)" and f"{handed} of the file" in frozen.provenance["notes"]
    for frames in (4, 2, 1):  # whole clips, shorter ones, pictures
        clip = torch.rand(2, 3, frames, 3 * patch, 3 * patch)
        expected = theirs_newer.multilevel(encoder, (clip - MEAN) / STD, 2, (3, 6, 9, 12))
        for ours, level in zip(frozen.forward_layers(clip, 4), expected, strict=True):
            close(ours, level)
        close(frozen(clip), expected[-1])
    close(frozen(clip[:, :, 0]), expected[-1])
    parts = read_parts(parse(spec))
    predictor, context = parts.predictor.make(spec).eval(), torch.randn(2, 3, 24 * levels)
    with torch.no_grad():
        close(parts.online.make(spec)(clip), theirs_newer.multilevel(other, (clip - MEAN) / STD, 2, (3, 6, 9, 12))[-1])
        for kind in ("video", "img"):
            found = predictor(context, Masks(SEEN, HIDDEN[:, None]), kind == "img")
            expected = theirs_newer.multilevel_predictor(head, context, SEEN, HIDDEN, 2, 3, patch, kind)
            close(found[0][:, 0], expected[0]), close(found[1], expected[1])


def test_vjepa21s_pretraining_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(IJEPA, "progress", 0.5)
    encoder, other, head = multilevel(tmp_path / "in.pt", 16, 4, 96, "target_encoder")
    method = IJEPA(
        MultilevelViT(48, 16, 24, 12, 2, frames=4),
        lambda width, grid: MultilevelPredictor(width, grid, 36, 1, 2, fuse=24),
        AdamW(Constant(1e-3), Constant(0.05)),
        Constant(0.999),
        loss=torch.nn.L1Loss(),
        depths=(3, 6, 9, 12),
        dense=DenseLoss(Constant(0.5)),
    )
    said = begin_from(method, f"{tmp_path}/in.pt?heads=2&predictor_heads=2")
    assert [line.split(":")[0] for line in said] == ["encoder", "target", "predictor"]
    assert torch.equal(method.encoder.norms_block[1].weight, other["norms_block.1.weight"])
    assert torch.equal(method.target.module.norms_block[1].weight, encoder["norms_block.1.weight"])
    clip = torch.rand(2, 3, 4, 48, 48)
    output = method.step(Batch([clip], [Masks(SEEN, HIDDEN[:, None])], torch.zeros(2), ["a", "b"]))
    normed, levels = (clip - MEAN) / STD, (3, 6, 9, 12)
    context = torch.cat(theirs_newer.multilevel(other, normed, 2, levels, SEEN), -1)
    target = theirs_newer.multilevel(encoder, normed, 2, levels)
    target = torch.cat([torch.nn.functional.layer_norm(one, (24,)) for one in target], -1)
    expected = theirs_newer.multilevel_predictor(head, context, SEEN, HIDDEN, 2, 3, 16)[0]
    close(output.terms["prediction"], (expected - gather_tokens(target, HIDDEN)).abs().mean())


def test_vjepa21_files_that_do_not_fit(tmp_path):
    encoder, _, head = multilevel(tmp_path / "in.pt", 16, 4, 96, "target_encoder")
    options = "heads=2&predictor_heads=2&image_size=48&frames=4"
    with pytest.raises(UserError, match="vjepa2 was asked for, found several norms"):
        FrozenEncoder.load(f"vjepa2:{tmp_path}/in.pt?{options}")
    shallow = {name: one for name, one in encoder.items() if not name.startswith("blocks.11.")}
    torch.save({"encoder": shallow}, tmp_path / "in.pt")
    with pytest.raises(UserError, match="12, 24, 40, 48 blocks, not of 11"):
        FrozenEncoder.load(f"{tmp_path}/in.pt?{options}")
    del head["predictor_proj_context.bias"]
    torch.save({"encoder": encoder, "predictor": head}, tmp_path / "in.pt")
    with pytest.raises(UserError, match=r"missing: predictor_proj_context\.bias"):
        read_parts(parse(f"{tmp_path}/in.pt?{options}")).predictor.make("in.pt")
    frozen = FrozenEncoder.load(f"{tmp_path}/in.pt?{options}")
    with pytest.raises(UserError, match="has norms after blocks"):
        frozen.encoder(torch.rand(1, 3, 4, 48, 48), depths=(2,))

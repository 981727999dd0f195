"""The rendered worlds: physics, what hides what, two futures of one past, and what an action does."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from small_videos import whole

from jepa_pretrain.cli import main
from jepa_pretrain.contracts import UserError
from jepa_pretrain.data import physics, worlds
from jepa_pretrain.data.archive import Shard
from jepa_pretrain.data.moving import moving
from jepa_pretrain.data.paint import covers, paint
from jepa_pretrain.data.spans import Span
from jepa_pretrain.data.stream import batches
from jepa_pretrain.data.truth import true_flow, truth
from jepa_pretrain.data.verify import verify
from jepa_pretrain.data.views import CentreCrop


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_energy_and_momentum_are_kept():
    scenes = worlds.bounce(40, 60, 16, rng())
    mass = scenes.radius[:, None, :, None] ** 2
    energy = (mass * scenes.velocity**2).sum((-1, -2))  # (S, T)
    assert np.allclose(energy, energy[:, :1])
    small = (mass * scenes.velocity**2)[:, :, 1:].sum(-1)
    exchanged = np.abs(small - small[:, :1]).max((1, 2)) > 1e-6
    assert exchanged.mean() > 0.3, "the small ones do meet"
    assert np.allclose(np.abs(scenes.velocity[:, :, 0]), np.abs(scenes.velocity[:, :1, 0])), "the large one: walls only"
    wide = scenes.radius[:, None, :, None]
    assert ((scenes.position >= wide - 1e-9) & (scenes.position <= 1 - wide + 1e-9)).all()


def test_a_head_on_collision_is_the_textbooks():
    position, velocity = np.array([[[0.3, 0.5], [0.7, 0.5]]]), np.array([[[0.05, 0.0], [-0.03, 0.0]]])
    moved = physics.bounce(position, velocity, np.array([[0.1, 0.1]]), np.array([0, 0]), 6)
    assert np.allclose(moved.velocity[0, -1], [[-0.03, 0.0], [0.05, 0.0]]), "equal masses swap"
    apart = physics.bounce(position, velocity, np.array([[0.1, 0.1]]), np.array([0, 1]), 6)
    assert np.allclose(apart.velocity[0, -1], velocity[0]), "those of other layers pass"


def test_velocity_is_the_difference_of_positions_where_nothing_is_hit():
    scenes = worlds.bounce(40, 20, 16, rng())
    free = (scenes.velocity[:, 1:] == scenes.velocity[:, :-1]).all(-1)
    assert 0.5 < free.mean() < 1
    step = np.diff(scenes.position, axis=1)
    assert np.allclose(step[free], scenes.velocity[:, :-1][free])


def test_pictures_show_where_things_are_and_what_is_in_front():
    scenes = worlds.bounce(12, 6, 64, rng())
    pixels, seen = paint(scenes)
    cover = covers(scenes.position, scenes.shape, scenes.radius, scenes.angle, 64)
    assert pixels.shape == (12, 6, 64, 64, 3)
    row = (np.arange(64) + 0.5) / 64
    discs = cover * (scenes.shape == 3)[:, None, :, None, None]  # whose middle is their centre of mass
    heavy = discs.sum((-1, -2)) > 1
    middle = (cover * row).sum((-1, -2)) / cover.sum((-1, -2))
    assert np.allclose(middle[heavy], scenes.position[..., 0][heavy], atol=0.01)
    for number, front in ((0, (1, 2)), (1, (2,)), (2, ())):
        alone = cover[:, :, number] > 0.999
        for other in front:
            alone &= cover[:, :, other] == 0
        at = np.argwhere(alone)
        wanted = scenes.colour[at[:, 0], number] * 255
        assert np.abs(pixels[tuple(at.T)] - wanted).max() < 0.6, "the front-most object's colour, whole"
        both = cover[:, :, number] > 0.999
        hidden = np.zeros_like(both)
        for other in front:
            hidden |= cover[:, :, other] > 0.999
        share = (both & hidden).sum((-1, -2)) / both.sum((-1, -2))
        assert np.abs(1 - share - seen[:, :, number]).max() < 0.2
    assert seen[:, :, 2].min() > 0.999
    assert seen[:, :, 0].min() < 0.95, "the large one is hidden in part, sometimes"


def test_flow_carries_the_objects_along():
    scenes = worlds.bounce(8, 5, 64, rng(3))
    known = {
        name: value for name, value in scenes._asdict().items() if name in ("position", "shape", "radius", "angle")
    }
    field = true_flow({name: torch.from_numpy(value) for name, value in known.items()}, 64).numpy()
    assert field.shape == (8, 4, 2, 64, 64)
    cover = covers(scenes.position, scenes.shape, scenes.radius, scenes.angle, 64)
    front = cover[:, :-1, 2] > 0.999  # the front-most object: nothing else moves its pixels
    at = np.argwhere(front)
    step = (scenes.position[:, 1:, 2] - scenes.position[:, :-1, 2])[at[:, 0], at[:, 1]] * 64
    assert np.allclose(field[at[:, 0], at[:, 1], :, at[:, 2], at[:, 3]], step, atol=1e-4)
    assert (field[np.broadcast_to((cover[:, :-1] == 0).all(2)[:, :, None], field.shape)] == 0).all()


def test_the_fork_has_two_futures_of_one_past_and_a_third_on_demand():
    pixels, _ = paint(scenes := worlds.fork(12, 16, 32, rng()))
    left, right = pixels[0::2], pixels[1::2]
    assert np.array_equal(left[:, :9], right[:, :9])
    assert all((left[:, frame] != right[:, frame]).any() for frame in range(9, 16))
    assert (scenes.label == [0, 1] * 6).all()
    bend = scenes.position[:, 8, 0, 0]
    assert (np.sign(scenes.position[:, -1, 0, 0] - bend) == [-1, 1] * 6).all()
    three = worlds.fork(18, 16, 32, rng(), ways=(-1, 0, 1))
    assert np.array_equal(paint(three)[0][0::3], left), "with the same pasts"
    assert np.allclose(three.position[1::3, 9:, 0, 0], three.position[1::3, 8:9, 0, 0])
    assert len(worlds.fork(3, 16, 32, rng()).label) == 3
    speed = np.linalg.norm(scenes.velocity, axis=-1)
    assert (np.diff(speed, axis=1)[:, :6] > 0).all(), "quicker and quicker"


@pytest.mark.parametrize("world", [worlds.fork, worlds.bounce])
def test_alike_scenes_move_as_before_and_share_colours_that_are_brighter_than_any_ground(world):
    scenes = world(64, 8, 32, rng())
    same = worlds.alike(scenes)
    assert np.array_equal(same.position, scenes.position) and (scenes.colour[0] != scenes.colour[2]).any()
    assert (same.colour == same.colour[:1]).all()
    brightest = same.background.sum(-1).max()  # of all scenes; tracks included
    assert (same.colour.sum(-1) > brightest - 0.3).all() and (same.colour[:, 0].sum(-1) > brightest).all()


def test_alike_shards_are_others(tmp_path: Path):
    rest = ["--world", "fork", "--train", "2", "--val", "2", "--frames", "4"]
    main(["shards", "demo-video", str(tmp_path / "drawn"), *rest])
    main(["shards", "demo-video", str(tmp_path / "same"), *rest, "--alike", "true"])
    drawn, same = (truth(str(tmp_path / name / "train-*.tar")) for name in ("drawn", "same"))
    assert same["position"].equal(drawn["position"]) and (same["colour"] == 1).all() and (drawn["colour"] != 1).any()
    assert digest(tmp_path / "drawn") != digest(tmp_path / "same")


def test_an_action_pushes():
    scenes = worlds.pushed(20, 16, 16, rng())
    assert np.array_equal(scenes.actions[:, 0], scenes.actions[:, worlds.HOLD - 1])
    assert (scenes.actions[:, 0] != scenes.actions[:, worlds.HOLD]).all()
    step = np.diff(scenes.position[:, :, 0], axis=1)
    wanted = worlds.DAMPING * scenes.velocity[:, :-1, 0] + worlds.FORCE * scenes.actions[:, :-1]
    free = np.isclose(scenes.velocity[:, 1:, 0], wanted).all(-1)
    assert free.mean() > 0.5
    assert np.allclose(step[free], wanted[free])
    still = worlds._room(20, 16, 16, rng(), np.zeros((20, 16, 2)))
    assert np.abs(still.velocity[:, -1, 0]).max() < 0.01, "without a push it comes to rest"


def digest(folder: Path) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.tar"))]


@pytest.mark.parametrize("world", ["bounce", "fork", "pushed"])
def test_shards_hold_frames_labels_truth_and_actions(world: str, tmp_path: Path):
    for name, seed in (("one", "0"), ("two", "0"), ("three", "1")):
        rest = ["--world", world, "--train", "5", "--val", "4", "--frames", "6", "--seed", seed]
        main(["shards", "demo-video", str(tmp_path / name), *rest])
    assert digest(tmp_path / "one") == digest(tmp_path / "two") != digest(tmp_path / "three")
    source = str(tmp_path / "one" / "train-*.tar")
    verify(str(tmp_path / "one"))
    span = Span(frames=3, stride=2)
    (batch,) = batches(source, CentreCrop(32), workers=0, span=span)
    known = truth(source, batch.key[::-1], span)
    assert known["position"].shape[:2] == (5, 3)
    every = truth(source)
    assert every["position"].flip(0)[:, 1:6:2].equal(known["position"]), "the frames read, in order of keys"
    assert known["shape"].flip(0)[:, 0].tolist() == batch.label.tolist() or world == "fork"
    assert (batch.actions is not None) == (world == "pushed")
    shard = Shard(tmp_path / "one" / "train-000000.tar")
    exact = whole(bytes(shard.read(0, "mp4")))
    assert np.array_equal(batch.views[0][0].permute(1, 2, 3, 0).numpy(), np.stack(exact[1:6:2]))
    if world == "fork":
        assert np.array_equal(whole(bytes(shard.read(1, "mp4")))[:4], exact[:4]), "lossless, so the pasts are equal"


def test_mistakes_are_explained(tmp_path: Path, demo_shards: Path):
    with pytest.raises(UserError, match="impossible demo"):
        moving(str(tmp_path), size=33)
    with pytest.raises(UserError, match="no truth of any sample"):
        truth(str(demo_shards))
    with pytest.raises(UserError, match="no truth of nobody"):
        truth(str(demo_shards), ["nobody"])

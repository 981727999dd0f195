"""Recorded behaviour: what was seen and done, the same for the same seed, continued where it stopped."""

import json

import pytest
import torch

pytest.importorskip("gymnasium", reason="the extra [agent] is not installed")
pytest.importorskip("av", reason="videos need PyAV")

import toy_environment

from jepa_pretrain import cli
from jepa_pretrain.acting import collect as collecting
from jepa_pretrain.acting.collect import collect
from jepa_pretrain.contracts import UserError
from jepa_pretrain.data import trajectories
from jepa_pretrain.data.spans import Span
from jepa_pretrain.data.stream import batches
from jepa_pretrain.data.trajectories import read_episodes, windows
from jepa_pretrain.data.verify import verify
from jepa_pretrain.data.views import CentreCrop

toy_environment.register()
TOY = toy_environment.NAME


def tars(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_frames_actions_and_truth_belong_together(tmp_path, capsys):
    cli.main(["agent", "collect", TOY, str(tmp_path), "--behaviour=random+sticky", "--frames=150", "--size=32"])
    assert "150 frames" in capsys.readouterr().out
    verify(str(tmp_path))
    episodes = read_episodes(str(tmp_path))
    assert sum(len(one.frames) for one in episodes) == 150
    assert {one.about["behaviour"] for one in episodes} == {"random", "sticky"}
    for one in episodes:
        assert len(one.frames) == len(one.actions) + 1 == len(one.state) == len(one.proprio)
        assert torch.allclose(one.proprio[1:], (one.proprio[:-1] + 0.1 * one.actions).clamp(0, 1), atol=1e-6)
        for frame, place in zip(one.frames, one.proprio, strict=True):  # the video kept every pixel
            rows, columns = (frame[0] == 255).nonzero().unbind(1)
            assert (columns.min(), rows.min()) == tuple((place * 27).int().tolist())
        assert set(frame.unique().tolist()) == {0, 255}
    assert episodes[0].about["actions"] == {"width": 2, "low": [-1.0, -1.0], "high": [1.0, 1.0]}


def test_the_loader_reads_them_as_clips_with_actions(tmp_path):
    collect(TOY, str(tmp_path), frames=60, size=32, steps=15)
    episodes = [one for one in read_episodes(str(tmp_path)) if len(one.frames) > 4]
    found = {one.key[0]: one for one in batches(str(tmp_path), CentreCrop(32), 1, workers=0, span=Span(frames=4))}
    for key, batch in found.items():
        clip = batch.views[0][0].transpose(0, 1)  # (T, C, H, W)
        matches = [
            torch.equal(clip, one.frames[i : i + 4]) and torch.equal(batch.actions[0, :3], one.actions[i : i + 3])
            for one in episodes
            for i in range(len(one.frames) - 3)
        ]
        assert any(matches) or len(clip.unique(dim=0)) < 4, key  # shorter episodes hold their last frame


def test_an_interrupted_recording_goes_on_and_parallel_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "SHARD", 40)
    whole, broken, narrow = (tmp_path / name for name in ("whole", "broken", "narrow"))
    collect(TOY, str(whole), frames=120, size=32, seed=3)
    collect(TOY, str(narrow), frames=120, size=32, seed=3, parallel=1)
    assert len(tars(whole)) == 3
    assert tars(whole) == tars(narrow)
    finish, done = trajectories.finish_shard, []

    def stop(*args):
        if done:
            raise KeyboardInterrupt
        done.append(finish(*args))

    monkeypatch.setattr(trajectories, "finish_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        collect(TOY, str(broken), frames=120, size=32, seed=3)
    assert not (broken / "index.json").exists()
    stamp = (broken / "train-000000.tar").stat().st_mtime_ns
    monkeypatch.setattr(trajectories, "finish_shard", finish)
    collect(TOY, str(broken), frames=120, size=32, seed=3)
    assert tars(broken) == tars(whole)
    assert (broken / "train-000000.tar").stat().st_mtime_ns == stamp, "no double work"
    with pytest.raises(UserError, match="another source"):
        collect(TOY, str(broken), frames=120, size=32, seed=4)


def test_episodes_that_throw_are_dropped_and_counted(tmp_path, capsys):
    collect("ToyThrows-v0", str(tmp_path), frames=80, size=32, parallel=3)
    told = capsys.readouterr().out
    index = json.loads((tmp_path / "index.json").read_text())
    assert f"{len(index['bad'])} episodes were dropped because ToyThrows-v0 threw" in told
    assert index["bad"] and all("the floor gave way" in one["reason"] for one in index["bad"])
    assert all(one.about["seed"] % 2 == 0 or len(one.frames) <= 3 for one in read_episodes(str(tmp_path)))
    with pytest.raises(UserError, match="ToyAlways-v0 throws in nearly every episode; the last time: RuntimeError"):
        collect("ToyAlways-v0", str(tmp_path / "always"), frames=80, size=32)


def test_windows_stay_inside_their_episode():
    assert windows([4, 2, 3], 2).tolist() == [0, 1, 6]
    assert windows([2, 2], 2).tolist() == []


def test_what_is_no_recording_is_refused(tmp_path, demo_shards):
    with pytest.raises(UserError, match="is no recorded episode"):
        read_episodes(str(demo_shards))
    with pytest.raises(UserError, match="impossible recording"):
        collect(TOY, str(tmp_path), frames=1)

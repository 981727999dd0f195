"""A run folder says what the run ran on, and is enough to run it again, bit for bit."""

import csv
import json
import os
import platform
from pathlib import Path

import pytest
import torch
import yaml

from jepa_pretrain import cli

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore")


def fit(*words):
    torch.rand(7)  # what was drawn before must not matter
    cli.main(["fit", *map(str, words)])


def curve(run):
    """metrics.csv without the one column that is a clock."""
    return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in rows(run)]


def rows(run):
    return list(csv.DictReader((run / "metrics.csv").open()))


def weights(run):
    return (run / "export" / "model.safetensors").read_bytes()


def data(demo_shards):
    return [f"--data.{split}={demo_shards}/{split}-*.tar" for split in ("train", "val")]


@pytest.mark.parametrize("method", ["ijepa", "vicreg"])
def test_a_run_is_repeated_bit_for_bit_from_its_config(method, demo_shards, tmp_path):
    """Its recipe came from two files, and the command line changed some keys."""
    first, second, other = tmp_path / "first", tmp_path / "second", tmp_path / "other"
    patch = tmp_path / "patch.yaml"
    patch.write_text(yaml.safe_dump({"data": {"init_args": {"batch_size": 12}}, "trainer": {"gradient_clip_val": 1.0}}))
    changes = ["--trainer.max_steps=6", "--trainer.val_check_interval=3", "--seed_everything=5", "--data.seed=3"]
    fit("--config", ROOT / f"recipes/debug/{method}.yaml", "--config", patch, *data(demo_shards), *changes,
        f"--run={first}")  # fmt: skip
    fit("--config", first / "config.yaml", f"--run={second}")
    assert weights(first) == weights(second)
    assert curve(first) == curve(second) and len(curve(first)) >= 6
    resolved = yaml.safe_load((second / "config.yaml").read_text())
    assert resolved["data"]["init_args"]["batch_size"] == 12 and resolved["seed_everything"] == 5
    fit("--config", first / "config.yaml", f"--run={other}", "--seed_everything=6")
    assert weights(first) != weights(other)


def test_every_start_is_recorded_and_none_is_lost(demo_shards, tmp_path):
    run = tmp_path / "run"
    words = ["--config", ROOT / "recipes/debug/ijepa.yaml", *data(demo_shards), f"--run={run}"]
    fit(*words, "--trainer.max_steps=2")
    (before,) = json.loads((run / "record.json").read_text())["starts"]
    fit(*words, "--trainer.max_steps=4", "--ckpt_path=last")
    first, second = json.loads((run / "record.json").read_text())["starts"]
    assert first == before
    assert (first["from_step"], second["from_step"]) == (0, 2)
    assert first["from_checkpoint"] is None and second["from_checkpoint"].endswith("step-000000002.ckpt")
    assert first["packages"]["torch"] == torch.__version__ and first["packages"]["python"] == platform.python_version()
    assert first["data"]["samples"] == 96 and first["data"]["val"]["samples"] == 40
    assert len(first["data"]["digest"]) == len(first["data"]["val"]["digest"]) == 64
    assert first["seed"] == "0" and first["world_size"] == 1 and first["hosts"] == [platform.node()]
    assert first["hardware"]["cpu"] and first["hardware"]["cores"] == os.cpu_count()
    assert first["arithmetic"]["threads"] == torch.get_num_threads() and first["arithmetic"]["precision"] == "32-true"
    assert len(first["git"]["revision"]) >= 7 and isinstance(first["git"]["changed"], bool)


def test_a_config_keeps_nothing_that_belongs_to_one_start(demo_shards, tmp_path):
    """A continued run's recipe starts a new run, and the recipe that it began with is kept."""
    run = tmp_path / "run"
    words = ["--config", ROOT / "recipes/debug/ijepa.yaml", *data(demo_shards), f"--run={run}"]
    fit(*words, "--trainer.max_steps=2")
    fit(*words, "--trainer.max_steps=4", "--ckpt_path=last")
    fit(*words, "--trainer.max_steps=4", "--ckpt_path=last")
    found = {path.name: yaml.safe_load(path.read_text()) for path in run.glob("config*.yaml")}
    assert sorted(found) == ["config-1.yaml", "config.yaml"]
    assert found["config-1.yaml"]["trainer"]["max_steps"] == 2 and found["config.yaml"]["trainer"]["max_steps"] == 4
    assert found["config.yaml"]["ckpt_path"] is None
    fit("--config", run / "config.yaml", f"--run={tmp_path / 'again'}")
    assert [int(row["step"]) for row in rows(tmp_path / "again") if row["train/loss"]] == [0, 1, 2, 3]


def test_a_checkpoint_says_which_data_it_saw(demo_shards, tmp_path):
    run = tmp_path / "run"
    fit("--config", ROOT / "recipes/debug/ijepa.yaml", *data(demo_shards), f"--run={run}", "--trainer.max_steps=1")
    told = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["export"]["provenance"]["data"]
    (start,) = json.loads((run / "record.json").read_text())["starts"]
    assert told["digest"] == start["data"]["digest"] and told["val"]["digest"] == start["data"]["val"]["digest"]

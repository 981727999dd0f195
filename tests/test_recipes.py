"""Every recipe parses and explains itself; every debug one trains and hands over an encoder."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

from jepa_pretrain import FrozenEncoder, cli

ROOT = Path(__file__).parent.parent
SPLITS = ("train", "val")
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


def named(path):
    return str(path.relative_to(ROOT / "recipes"))


@pytest.mark.parametrize("recipe", RECIPES, ids=named)
def test_parses(recipe, capsys):
    """Types, names and nesting of every argument, without building anything."""
    with pytest.raises(SystemExit) as end:
        cli.main(["fit", "--config", str(recipe), "--print_config"])
    assert end.value.code in (0, None)
    resolved = yaml.safe_load(capsys.readouterr().out)
    assert resolved["model"]["class_path"].startswith("jepa_pretrain.methods.")
    assert resolved["trainer"]["use_distributed_sampler"] is False


@pytest.mark.parametrize(
    "change, words",
    [
        ("--model.init_args.encoder.init_args.widht=3", "widht"),
        ("--data.init_args.bath_size=3", "bath_size"),
        ("--trainer.max_stepz=3", "max_stepz"),
    ],
)
def test_misspelt_key_is_refused(change, words, capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        cli.main(["fit", "--config", str(ROOT / "recipes/debug/ijepa.yaml"), f"--run={tmp_path / 'run'}", change])
    assert end.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", RECIPES, ids=named)
def test_header_tells_command_hardware_and_expectation(recipe):
    header = "".join(line for line in recipe.read_text().splitlines(True) if line.startswith("#"))
    for word in ("Command:", "Hardware:", "Expected:", str(recipe.relative_to(ROOT))):
        assert word in header, f"{recipe.name} lacks {word}"


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.parent.name == "debug"], ids=named)
def test_debug_recipes_train(recipe, demo_shards, tmp_path):
    run = tmp_path / "run"
    sides = ["videos.init_args.", "pictures.init_args."] if recipe.stem == "mixed" else [""]
    places = [f"--data.init_args.{side}{split}={demo_shards}/{split}-*.tar" for side in sides for split in SPLITS]
    cli.main(
        [
            "fit",
            "--config",
            str(recipe),
            *places,
            f"--run={run}",
            "--trainer.max_steps=4",
            "--trainer.val_check_interval=2",
        ]
    )
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [int(r["step"]) for r in rows if r["train/loss"]] == [0, 1, 2, 3]
    assert any(r["probe/linear_top1"] for r in rows) and any(r["probe/knn_top1"] for r in rows)
    assert (run / "checkpoints" / "last.ckpt").exists()
    resolved = yaml.safe_load((run / "config.yaml").read_text())
    assert resolved["trainer"]["max_steps"] == 4
    encoder = FrozenEncoder.load(run / "export")
    assert encoder.provenance["step"] == 4
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    prefix = weights["export"]["prefix"]
    for name, value in encoder.encoder.state_dict().items():
        assert torch.equal(value, weights["state_dict"][prefix + name])

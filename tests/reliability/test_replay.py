"""From the command line: a fault is told in the run folder and on its page, outlives a resume, can be made again."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from faulty import Pixels

from jepa_pretrain import cli
from jepa_pretrain.contracts import UserError
from jepa_pretrain.replay import replay

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore")


def fit(recipe, demo_shards, run, *words):
    data = [f"--data.{split}={demo_shards}/{split}-*.tar" for split in ("train", "val")]
    cli.main(["fit", "--config", str(ROOT / f"recipes/debug/{recipe}.yaml"), *data, f"--run={run}", *words])


def pixels(tmp_path, step):
    """A second recipe that spoils a step."""
    path = tmp_path / "spoil.yaml"
    callback = {"class_path": "faulty.Pixels", "init_args": {"step": step}}
    path.write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    return ["--config", str(path)]


@pytest.mark.parametrize("recipe", ["ijepa", "vicreg"])
def test_the_batches_of_a_fault_are_made_again(recipe, demo_shards, tmp_path):
    """In the third epoch (96 pictures are six batches), after a resume, with accumulation."""
    run = tmp_path / "run"
    words = ["--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=6"]
    fit(recipe, demo_shards, run, *words, "--trainer.max_steps=4")
    fit(recipe, demo_shards, run, *pixels(tmp_path, 7), *words, "--trainer.max_steps=9", "--ckpt_path=last")
    again = replay(run / "faults" / "step-00000007.json")
    assert len(again) == len(Pixels.kept) == 2
    for ours, theirs in zip(again, Pixels.kept, strict=True):
        assert ours.key == theirs.key and torch.equal(ours.label, theirs.label)
        assert all(torch.equal(a, b) for a, b in zip(ours.views, theirs.views, strict=True))
        for a, b in zip(ours.masks, theirs.masks, strict=True):
            assert torch.equal(a.context, b.context) and torch.equal(a.targets, b.targets)


def test_a_fault_is_told_everywhere_and_counted_across_a_resume(demo_shards, tmp_path):
    run = tmp_path / "run"
    fit("ijepa", demo_shards, run, *pixels(tmp_path, 1), "--trainer.max_steps=3")
    fit("ijepa", demo_shards, run, *pixels(tmp_path, 4), "--trainer.max_steps=6", "--ckpt_path=last")
    rows = [row for row in csv.DictReader((run / "metrics.csv").open()) if row["train/loss"]]
    assert [float(row["train/skipped"]) for row in rows] == [0, 1, 1, 1, 2, 2]
    alarms = [json.loads(line) for line in (run / "alarms.jsonl").read_text().splitlines()]
    assert [(one["step"], one["kind"]) for one in alarms] == [(1, "skipped"), (4, "skipped")]
    for name in ("step-00000001.json", "step-00000004.json"):
        assert any(name in one["message"] for one in alarms) and (run / "faults" / name).exists()
    cli.main(["report", str(run)])
    page = (run / "report.html").read_text()
    assert "2 skipped" in page and page.count("with the alarms marked") == 1  # the rank was not measured yet


def test_what_cannot_be_replayed_says_why(demo_shards, tmp_path):
    run = tmp_path / "run"
    fit("vicreg", demo_shards, run, *pixels(tmp_path, 1), "--trainer.max_steps=3")
    fault, recipe = run / "faults" / "step-00000001.json", run / "config.yaml"
    with pytest.raises(UserError, match="rank 1 is not one of the 1"):
        replay(fault, rank=1)
    told = json.loads(fault.read_text())
    fault.write_text(json.dumps(told | {"data": {"digest": "0"}}))
    with pytest.raises(UserError, match="digests differ"):
        replay(fault)
    fault.write_text(json.dumps(told))
    resolved = yaml.safe_load(recipe.read_text())
    resolved["data"]["init_args"]["seed"] = 1
    recipe.write_text(yaml.safe_dump(resolved))
    with pytest.raises(UserError, match="gives other samples"):
        replay(fault)
    recipe.unlink()
    with pytest.raises(UserError, match="has to stay in its run folder"):
        replay(fault)
    with pytest.raises(UserError, match="is no fault file"):
        replay(run / "metrics.csv")

"""Refused recipes and runs: one line each, with the path of the key, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jepa_pretrain import cli
from jepa_pretrain.contracts import UserError
from jepa_pretrain.recipe import brief

ROOT = Path(__file__).parent.parent
IJEPA, VICREG = (str(ROOT / f"recipes/debug/{name}.yaml") for name in ("ijepa", "vicreg"))


def fit(*words: str) -> None:
    cli.main(["fit", *words])


def refused(capsys, *words: str) -> tuple[int | str, str]:
    with pytest.raises(SystemExit) as end:
        fit(*words)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return end.value.code, err.splitlines()[0] if err else ""


@pytest.mark.parametrize(
    "change, path",
    [
        ("patch: 4|pathc: 4", "model.encoder.pathc"),
        ("peak:|peek:", "model.optimizer.lr.peek"),
        ("batch_size|bath_size", "data.bath_size"),
        ("max_steps|max_stepz", "trainer.max_stepz"),
        ("width: 32|width: abc", "model.encoder.width: expected int. Got value: abc"),
        ("vit.ViT|vit.Vit", "model.encoder: module 'jepa_pretrain.models.vit' has no attribute 'Vit'"),
    ],
)
def test_a_refused_key_is_named_with_its_path(change, path, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(Path(IJEPA).read_text().replace(*change.split("|")))
    code, line = refused(capsys, "--config", str(recipe), "--run", str(tmp_path / "run"))
    assert code == 2 and line.startswith(f"error: {path}"), line
    assert not (tmp_path / "run").exists()


def test_the_command_line_is_refused_with_its_path_too(capsys):
    code, line = refused(capsys, "--config", IJEPA, "--model.encoder.widht", "3")
    assert (code, line) == (2, "error: model.encoder.widht: there is no such key in jepa_pretrain.models.vit.ViT")


def test_no_recipe_and_no_such_recipe(capsys):
    assert "--config" in refused(capsys)[1]
    assert "nope.yaml" in refused(capsys, "--config", "nope.yaml")[1]


def test_brief_keeps_a_message_it_does_not_know():
    assert brief("something else\n  happened") == "something else; happened"


@pytest.mark.parametrize(
    "words, part",
    [
        (["--model.encoder.patch=5"], "does not divide into patches of 5 px"),
        (["--model.encoder.patch=16"], "masks impossible"),
        (["--data.train=nowhere/*.tar"], "no shards match"),
        (["--ckpt_path=nope.ckpt"], "no checkpoint at nope.ckpt"),
        (["--trainer.max_steps=0"], "nothing to train"),
        (["--trainer.strategy=nope"], "trainer: "),
        (["--checkpoint.every=0"], "checkpoint.every"),
    ],
)
def test_a_run_that_cannot_start_says_why_and_leaves_no_recipe(words, part, demo_shards, tmp_path, capsys):
    run = tmp_path / "run"
    data = [f"--data.{split}={demo_shards}/{split}-*.tar" for split in ("train", "val")]
    code, _ = refused(capsys, "--config", IJEPA, *data, *words, f"--run={run}")
    assert part in str(code) and "\n" not in str(code)
    assert part == "masks impossible" or not run.exists()  # masks are drawn for the first batch


def test_one_picture_at_a_time_is_too_few_for_two_branches(demo_shards, tmp_path, capsys):
    words = ["--config", VICREG, f"--data.train={demo_shards}/train-*.tar", "--data.val=null", "--data.batch_size=1"]
    assert "batch_size" in str(refused(capsys, *words, f"--run={tmp_path / 'run'}")[0])


def test_checkpoints_that_do_not_fit(demo_shards, tmp_path, capsys):
    data = [f"--data.train={demo_shards}/train-*.tar", "--data.val=null", "--trainer.max_steps=1"]
    fit("--config", VICREG, *data, f"--run={tmp_path / 'vicreg'}")
    other = tmp_path / "vicreg" / "checkpoints" / "last.ckpt"
    start = ["--config", IJEPA, *data, f"--run={tmp_path / 'ijepa'}"]
    assert "another method or architecture" in str(refused(capsys, *start, f"--ckpt_path={other}")[0])
    other.write_bytes(other.read_bytes()[:2000])
    assert "truncated or not a checkpoint" in str(refused(capsys, *start, f"--ckpt_path={other}")[0])


def test_a_run_folder_that_is_a_file(demo_shards, tmp_path, capsys):
    (tmp_path / "run").touch()
    words = ["--config", IJEPA, f"--data.train={demo_shards}/train-*.tar", "--data.val=null", f"--run={tmp_path}/run"]
    assert str(refused(capsys, *words)[0]).startswith("error: cannot write")


def test_help_begins_with_what_a_newcomer_needs(capsys):
    with pytest.raises(SystemExit) as end:
        fit("--help")
    top = capsys.readouterr().out.splitlines()[:25]
    assert end.value.code in (0, None)
    for word in ("--config", "--run", "--KEY VALUE", "--ckpt_path last", "--print_config", "--model.help"):
        assert any(word in line for line in top), word
    assert max(map(len, top)) <= 80


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_keeps_a_checkpoint_and_the_run_goes_on_without_a_gap(workers, demo_shards, tmp_path):
    run = tmp_path / "run"
    data = [f"--data.train={demo_shards}/train-*.tar", "--data.val=null", f"--data.workers={workers}"]
    words = [sys.executable, "-m", "jepa_pretrain.cli", "fit", "--config", IJEPA, *data, f"--run={run}"]
    process = subprocess.Popen(
        [*words, "--trainer.max_steps=100000"], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (run / "metrics.csv").exists() and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # to the workers as well
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in err
    assert "--ckpt_path last" in err.splitlines()[-1]
    steps = logged(run)
    last = steps[-1] + 1
    assert f"stopped at step {last};" in err
    fit(*words[4:], f"--trainer.max_steps={last + 4}", "--ckpt_path=last")
    assert logged(run) == list(range(last + 4))


def logged(run: Path) -> list[int]:
    return [int(row.split(",")[0]) for row in (run / "metrics.csv").read_text().splitlines()[1:]]


def test_continuing_nothing_begins_anew_and_says_so(demo_shards, tmp_path, capsys):
    data = [f"--data.train={demo_shards}/train-*.tar", "--data.val=null", "--trainer.max_steps=1"]
    fit("--config", IJEPA, *data, f"--run={tmp_path}/run", "--ckpt_path=last")
    assert "starting anew" in capsys.readouterr().out


def test_user_errors_pass_through_unchanged():
    from jepa_pretrain.mistakes import plain_errors

    with pytest.raises(UserError, match="mine"), plain_errors():
        raise UserError("mine")

"""A rank that dies or fails ends the run on all ranks, with one line that names it."""

import os
import signal
import sys
from pathlib import Path

import pytest
from ranks import end, start

from jepa_pretrain import cli
from jepa_pretrain.methods.base import Method

ROOT = Path(__file__).parents[2]


def fit(rank, world, folder, data, fault, victim):
    """`jepa-pretrain fit` on this rank, which writes to a file; `fault` happens in the victim's third batch."""
    handle = os.open(f"{folder}/rank{rank}.log", os.O_WRONLY | os.O_CREAT)
    for number in (1, 2):
        os.dup2(handle, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    if rank == victim:
        arrange(fault)
    recipe, run = str(ROOT / "recipes/debug/ijepa.yaml"), f"{folder}/run"
    options = {"train": f"{data}/train-*.tar", "val": f"{data}/val-*.tar", "batch_size": "4", "workers": "1"}
    cli.main(
        ["fit", "--config", recipe, "--run", run, "--trainer.devices", str(world), "--trainer.max_steps", "100000"]
        + [word for name, value in options.items() for word in (f"--data.{name}", value)]
    )


def arrange(fault):
    whole = Method.training_step

    def training_step(self, batch, batch_idx):
        if self.trainer.fit_loop.total_batch_idx == 2:
            fault()
        return whole(self, batch, batch_idx)

    Method.training_step = training_step


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def be_asked():
    os.kill(os.getpid(), signal.SIGTERM)


def stumble():
    raise ZeroDivisionError("stumbled")


def out_of_memory():
    raise RuntimeError("out of memory")  # of the kind that a broken exchange raises, too


def lines(folder, words):
    return [line for log in sorted(folder.glob("rank*.log")) for line in log.read_text().splitlines() if words in line]


@pytest.mark.parametrize("world, victim", [(2, 0), (3, 1)])
def test_death_of_a_rank(world, victim, demo_shards, tmp_path):
    codes = end(start(fit, world, str(tmp_path), str(demo_shards), die, victim))
    assert codes == [-signal.SIGKILL if rank == victim else 1 for rank in range(world)]
    said = lines(tmp_path, "error:")
    assert said and all(line.startswith(f"error: rank {victim} (process ") and " died" in line for line in said)
    assert len(said) == 1 and not lines(tmp_path, "Traceback")


@pytest.mark.parametrize("fault, victim", [(stumble, 0), (out_of_memory, 1)])
def test_failure_of_a_rank(fault, victim, demo_shards, tmp_path):
    codes = end(start(fit, 2, str(tmp_path), str(demo_shards), fault, victim))
    assert codes == [1, 1]
    assert "Traceback" in (tmp_path / f"rank{victim}.log").read_text()
    assert "Traceback" not in (tmp_path / f"rank{1 - victim}.log").read_text()
    if victim == 1:
        assert len(lines(tmp_path, "error: rank 1 failed: ")) == 1


def test_mistake_of_the_user_is_told_once(tmp_path):
    codes = end(start(fit, 2, str(tmp_path), str(tmp_path / "nothing"), die, None))
    assert codes == [1, 1]
    said = lines(tmp_path, "error:")
    assert len(said) == 1 and "nothing/train-" in said[0]
    assert not lines(tmp_path, "Traceback")


def test_one_rank_is_asked_and_all_stop_after_the_same_step(demo_shards, tmp_path):
    assert end(start(fit, 2, str(tmp_path), str(demo_shards), be_asked, 1)) == [75, 75]
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("step-*")] == ["step-000000004.ckpt"]
    assert len(lines(tmp_path, "stopped at step 4; go on with")) == 1 and not lines(tmp_path, "Traceback")

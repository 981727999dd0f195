"""The SLURM scripts, run with a stand-in for srun: the command line they would start, and what a signal does."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from stand_ins import ROOT, Checkout, script

SLURM = {"SLURM_NNODES": "4", "SLURM_NTASKS_PER_NODE": "8", "SLURM_CPUS_PER_TASK": "12", "SLURM_JOB_ID": "7"}
RECIPE = "recipes/ijepa_vith14_in1k.yaml"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def pretrain(checkout: Checkout, *arguments: str, **environment: str) -> str:
    """The one command that pretrain.sbatch would start."""
    checkout.stand_in("srun")
    result = checkout.run("scripts/slurm/pretrain.sbatch", *arguments, **SLURM, **environment)
    assert result.returncode == 0, result.stderr
    (call,) = checkout.calls()
    return call


def test_pretrain_job_starts_one_task_for_each_gpu(checkout: Checkout):
    call = pretrain(checkout, RECIPE, "--data.train", "/shards/train-*.tar")
    assert f"jepa-pretrain fit --config {RECIPE}" in call
    assert "--trainer.devices 8 --trainer.num_nodes 4" in call
    assert call.endswith("--run runs/ijepa_vith14_in1k --ckpt_path last --data.train /shards/train-*.tar")


def test_pretrain_job_fails_as_its_tasks_do(checkout: Checkout):
    checkout.stand_in("srun", status=3)
    assert checkout.run("scripts/slurm/pretrain.sbatch", RECIPE, **SLURM).returncode == 3


@pytest.mark.parametrize(("number", "status"), [(signal.SIGUSR1, 75), (signal.SIGUSR1, 137), (signal.SIGTERM, 75)])
def test_pretrain_job_waits_for_its_tasks_and_is_requeued(checkout: Checkout, number: int, status: int):
    """The signal reaches the script while its tasks run; they end on their own time, and stopped."""
    with running(checkout, status) as job:
        job.send_signal(number)
        if number == signal.SIGUSR1:
            wait_for(checkout.log, "scancel --signal=USR1 7")
        assert job.poll() is None
        (checkout.root / "enough").touch()
        assert job.wait(timeout=20) == status
    assert checkout.calls()[-2:] == ["finished", "scontrol requeue 7"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGUSR1, 0), (signal.SIGTERM, 1)])
def test_pretrain_job_that_finished_or_failed_is_not_requeued(checkout: Checkout, number: int, status: int):
    with running(checkout, status) as job:
        job.send_signal(number)
        (checkout.root / "enough").touch()
        assert job.wait(timeout=20) == status
    assert "scontrol requeue 7" not in checkout.calls()


def running(checkout: Checkout, status: int) -> subprocess.Popen:
    """A job whose tasks run until there is a file `enough`, and then end with a status."""
    checkout.stand_in("scontrol")
    checkout.stand_in("scancel")
    busy = 'until [ -e "$HOME/enough" ]; do read -rt 0.05 <> <(:) || :; done; echo finished >> "$LOG"'
    script(checkout.bin / "srun", f'#!/usr/bin/env bash\ntrap : TERM\necho started >> "$LOG"\n{busy}\nexit {status}\n')
    env = {"PATH": str(checkout.bin), "LOG": str(checkout.log), "HOME": str(checkout.root), **SLURM}
    job = subprocess.Popen(["bash", "scripts/slurm/pretrain.sbatch", RECIPE], cwd=checkout.root, env=env)
    wait_for(checkout.log, "started")
    return job


def wait_for(log: Path, line: str) -> None:
    """Until a stand-in has written this line."""
    end = time.monotonic() + 20
    while not (log.exists() and line in log.read_text().splitlines()):
        assert time.monotonic() < end, f"{line!r} was never written"
        time.sleep(0.02)


def test_pretrain_job_is_sent_with_what_a_requeue_needs():
    directives = [
        line for line in (ROOT / "scripts/slurm/pretrain.sbatch").read_text().splitlines() if line.startswith("#SBATCH")
    ]
    assert "#SBATCH --requeue" in directives
    assert "#SBATCH --signal=B:SIGUSR1@120" in directives
    asked = dict(line.removeprefix("#SBATCH --").split("=", 1) for line in directives if "=" in line)
    assert asked["gpus-per-node"] == asked["ntasks-per-node"]


def test_pack_job_packs_its_part(checkout: Checkout):
    checkout.stand_in("srun")
    task = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16"}
    result = checkout.run("scripts/slurm/pack.sbatch", "/pictures", "/shards", "--split", "val", **task)
    assert result.returncode == 0, result.stderr
    assert checkout.calls() == ["srun jepa-pretrain shards pack /pictures /shards --part 4/16 --workers 8 --split val"]


def test_pack_job_sent_again_alone_keeps_its_part(checkout: Checkout):
    checkout.stand_in("srun")
    task = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "1"}
    assert checkout.run("scripts/slurm/pack.sbatch", "/pictures", "/shards", **task).returncode == 2
    assert checkout.calls() == []
    assert checkout.run("scripts/slurm/pack.sbatch", "/pictures", "/shards", PARTS="16", **task).returncode == 0
    assert "--part 4/16" in checkout.calls()[0]

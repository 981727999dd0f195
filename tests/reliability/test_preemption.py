"""Asked to stop, or stopped by what happens on a node: the run says so, keeps what it has, and goes on from there."""

import multiprocessing
import os
import shutil
import signal
import time

import pytest
import torch
from reliability.runs import arguments, at_batch, differences, kill, run

from jepa_pretrain.callbacks import checkpoint
from jepa_pretrain.data.shards import Shards

LAST = ("--ckpt_path", "last")


@pytest.fixture(scope="module")
def undisturbed(demo_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run(arguments("vicreg", folder / "run", demo_shards), folder / "log") == 0
    return folder / "run"


@pytest.fixture
def command(demo_shards, tmp_path):
    return arguments("vicreg", tmp_path / "run", demo_shards, *LAST)


def steps_kept(folder) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*.ckpt"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_the_step_and_keeps_it(undisturbed, command, tmp_path, number, code):
    log = tmp_path / "log"
    assert run(command, log, at_batch(10, lambda: os.kill(os.getpid(), number))) == code
    assert "stopped at step 11" in log.read_text(), "the step that was running is not lost"
    assert steps_kept(tmp_path / "run")[-1] == 11
    assert "Traceback" not in log.read_text()
    assert run(command, log) == 0
    assert differences(undisturbed, tmp_path / "run") == []


def test_a_signal_to_every_process_of_a_job(undisturbed, command, tmp_path):
    """As SLURM sends it: the data workers get it too, and must live until the training process has saved."""
    log = tmp_path / "log"

    def everyone():
        os.setpgid(0, 0)
        at_batch(10, lambda: os.killpg(0, signal.SIGTERM))()

    assert run([*command, "--data.workers", "2"], log, everyone) == 75, log.read_text()
    assert steps_kept(tmp_path / "run")[-1] == 11
    assert run(command, log) == 0
    assert differences(undisturbed, tmp_path / "run") == []


def test_a_data_worker_that_dies_is_named(undisturbed, command, tmp_path):
    log = tmp_path / "log"

    def kill_worker():
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        time.sleep(1)

    assert run([*command, "--data.workers", "1"], log, at_batch(10, kill_worker)) == 1
    text = log.read_text()
    assert "error: a data worker died" in text and "--ckpt_path last" in text and "Traceback" not in text
    # torch hears of it from a signal, or, where its queue was being waited on, from the process that is no more
    assert "killed by signal: Killed" in text or "exited unexpectedly" in text
    assert run([*command, "--data.workers", "1"], log) == 0
    assert differences(undisturbed, tmp_path / "run") == []


def test_memory_that_runs_out_is_one_line(undisturbed, command, tmp_path):
    log = tmp_path / "log"
    assert run(command, log, at_batch(10, lambda: torch.empty(2**60))) == 1
    assert "error: memory is full" in log.read_text() and "Traceback" not in log.read_text()
    assert run(command, log) == 0
    assert differences(undisturbed, tmp_path / "run") == []


def dies_while_saving(where: str):
    """A fault: the process is killed in the midst of its third checkpoint."""

    def arrange() -> None:
        publish, calls = checkpoint._publish, []

        def third(part, path):
            calls.append(path)
            if len(calls) == 3 and where == "half written":
                part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
                kill()
            if len(calls) == 3 and where == "moved, not linked":
                os.replace(part, path)
                kill()
            publish(part, path)

        checkpoint._publish = third

    return arrange


@pytest.mark.parametrize("where", ["half written", "moved, not linked"])
def test_killed_while_a_checkpoint_is_written(undisturbed, command, tmp_path, where):
    folder = tmp_path / "run"
    assert run(command, tmp_path / "log", dies_while_saving(where)) == -9
    assert checkpoint.is_whole((folder / "checkpoints" / "last.ckpt").resolve())
    assert run(command, tmp_path / "log") == 0
    assert differences(undisturbed, folder) == []


def test_a_full_disk_says_so_and_keeps_the_one_before(undisturbed, demo_shards, tmp_path):
    """A file size limit stands for the disk: the kernel refuses the write in the same way, with another number."""
    command = arguments("vicreg", tmp_path / "run", demo_shards, *LAST)
    assert run(command, tmp_path / "log", at_batch(7, kill)) == -9
    before = steps_kept(tmp_path / "run")

    def full():
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    assert run(command, tmp_path / "log", full) == 1
    text = (tmp_path / "log").read_text()
    assert "error: cannot write the checkpoint of step" in text and "Traceback" not in text
    assert steps_kept(tmp_path / "run") == before
    assert not list((tmp_path / "run" / "checkpoints").glob("*.part"))
    assert run(command, tmp_path / "log") == 0
    assert differences(undisturbed, tmp_path / "run") == []


def test_sigterm_before_training_begins_ends_at_once(command, tmp_path):
    def while_data_are_opened():
        opens = Shards.train_dataloader

        def train_dataloader(self):
            signal.raise_signal(signal.SIGTERM)
            return opens(self)

        Shards.train_dataloader = train_dataloader

    assert run(command, tmp_path / "log", while_data_are_opened) == 75
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_damaged_checkpoint_gives_way_to_the_one_before(undisturbed, command, tmp_path):
    folder = tmp_path / "run"
    assert run(command, tmp_path / "log", at_batch(14, kill)) == -9
    newest = (folder / "checkpoints" / "last.ckpt").resolve()
    newest.write_bytes(newest.read_bytes()[:5000])
    assert run(command, tmp_path / "log") == 0
    assert "going on from step-" in (tmp_path / "log").read_text()
    assert differences(undisturbed, folder) == []


def test_a_finished_run_copied_elsewhere_is_refused_without_last(undisturbed, demo_shards, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "run", symlinks=True)
    assert run(arguments("vicreg", tmp_path / "run", demo_shards), tmp_path / "log") == 1
    assert "already holds a run" in (tmp_path / "log").read_text()

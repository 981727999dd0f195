"""A run that was killed and continued ends as the one that was never stopped: bit for bit."""

from pathlib import Path

import pytest
import torch
from ranks import end, start
from reliability.runs import arguments, at_batch, child, differences, kill, run

from jepa_pretrain.methods.base import Method

CASES = [  # recipe, gradient accumulation, data workers of the killed run, batches at which it is killed
    ("ijepa", 1, 0, (11, 17)),
    ("ijepa", 2, 1, (9, 25)),
    ("vicreg", 1, 2, (5, 13)),
    ("vicreg", 2, 0, (14, 31)),
    ("vjepa", 1, 0, (8,)),
    ("hjepa", 1, 0, (11,)),
]


@pytest.fixture(scope="module")
def undisturbed(demo_shards, tmp_path_factory):
    """Folder of a run that was never stopped, one per recipe and accumulation."""
    made = {}

    def get(recipe: str, accumulate: int):
        if (recipe, accumulate) not in made:
            folder = tmp_path_factory.mktemp(f"{recipe}{accumulate}")
            more = ["--trainer.accumulate_grad_batches", str(accumulate)]
            assert run(arguments(recipe, folder / "run", demo_shards, *more), folder / "log") == 0
            made[recipe, accumulate] = folder / "run"
        return made[recipe, accumulate]

    return get


@pytest.mark.parametrize(("recipe", "accumulate", "workers", "kills"), CASES)
def test_killed_twice_and_continued(undisturbed, demo_shards, tmp_path, recipe, accumulate, workers, kills):
    more = ["--trainer.accumulate_grad_batches", str(accumulate), "--data.workers", str(workers)]
    command = arguments(recipe, tmp_path / "run", demo_shards, *more, "--ckpt_path", "last")
    log = tmp_path / "log"
    for number in kills:
        assert run(command, log, at_batch(number, kill)) == -9
        assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists(), log.read_text()
    assert run(command, log) == 0, log.read_text()
    assert differences(undisturbed(recipe, accumulate), tmp_path / "run") == []


def test_a_run_of_clips_and_pictures_keeps_their_turns(demo_shards, tmp_path):
    """Killed in a batch of pictures, and continued with that batch; the model has parts for one kind alone."""
    command = arguments("mixed", tmp_path, demo_shards, "--ckpt_path", "last", "--trainer.max_steps", "6")
    whole, parts = ([*command, "--run", str(tmp_path / name)] for name in ("whole", "parts"))
    assert run(whole, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert run(parts, tmp_path / "log", at_batch(5, kill)) == -9
    assert run(parts, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


def keys_read(into):
    """A fault that is none: writes down the keys of every batch that training gets."""

    def arrange() -> None:
        whole = Method.training_step

        def training_step(self: Method, batch, batch_idx):
            with into.open("a") as file:
                file.write("".join(f"{self.current_epoch} {key}\n" for key in batch.key))
            return whole(self, batch, batch_idx)

        Method.training_step = training_step

    return arrange


def test_another_batch_size_still_reads_each_sample_once(demo_shards, tmp_path):
    """96 pictures: nine batches of 16 are one epoch and a half; batches of 12 read the other half, and then go on."""
    log, keys = tmp_path / "log", tmp_path / "keys"
    command = arguments("vicreg", tmp_path / "run", demo_shards, "--ckpt_path", "last", "--trainer.max_steps", "13")
    assert run([*command, "--trainer.max_steps", "9"], log, keys_read(keys)) == 0
    other = ["--data.batch_size", "12", "--trainer.max_steps", "21"]
    assert run([*command, *other], log, keys_read(keys)) == 0
    assert "12 x 1 ranks, was 16 x 1: epoch 1 goes on behind its sample 48 of 96" in log.read_text()
    read = [line.split(" ", 1) for line in keys.read_text().splitlines()]
    epochs = [[key for epoch, key in read if epoch == str(number)] for number in range(3)]
    assert [len(keys) for keys in epochs] == [96, 96, 96]
    assert all(len(set(keys)) == 96 for keys in epochs)


def test_a_run_that_is_lengthened_equals_the_long_one(demo_shards, tmp_path):
    """It ended inside an epoch. The learning rate is constant: schedules end with the run, and differ otherwise."""
    rate = "--model.init_args.optimizer.init_args.lr"
    constant = [rate, "jepa_pretrain.schedules.Constant", f"{rate}.init_args.value", "0.01"]
    parts = [["--run", str(tmp_path / name), *constant] for name in ("long", "parts")]
    command = arguments("vicreg", tmp_path, demo_shards, "--ckpt_path", "last")
    assert run([*command, *parts[0]], tmp_path / "log") == 0
    assert run([*command, *parts[1], "--trainer.max_steps", "15"], tmp_path / "log") == 0
    assert run([*command, *parts[1]], tmp_path / "log") == 0
    assert differences(tmp_path / "long", tmp_path / "parts") == []


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [("--data.seed", "1", "data.seed differ"), ("--data.reading.window", "3", "data.reading.window differ")],
)
def test_an_order_that_is_not_the_runs_is_refused(undisturbed, demo_shards, tmp_path, option, value, words):
    kept = undisturbed("ijepa", 1) / "checkpoints" / "last.ckpt"
    command = arguments("ijepa", tmp_path / "run", demo_shards, "--ckpt_path", str(kept), option, value)
    assert run(command, tmp_path / "log") == 1
    assert words in (tmp_path / "log").read_text() and "Traceback" not in (tmp_path / "log").read_text()


def test_what_a_step_draws_depends_on_the_step_alone(demo_shards, tmp_path):
    """Random numbers in training, as dropped paths need, are not those of another step after a restart."""

    def drawing(fault=None):
        def arrange() -> None:
            whole = Method.training_step

            def training_step(self: Method, batch, batch_idx):
                output = whole(self, batch, batch_idx)
                with (tmp_path / "drawn").open("a") as file:
                    file.write(f"{self.global_step} {torch.rand(()).item()}\n")
                return output

            Method.training_step = training_step
            if fault:
                fault()

        return arrange

    command = arguments("ijepa", tmp_path / "run", demo_shards, "--ckpt_path", "last", "--trainer.max_steps", "8")
    command += ["--data.val", "null"]  # no checkpoint but every third step
    assert run(command, tmp_path / "log", drawing(at_batch(5, kill))) == -9
    assert run(command, tmp_path / "log", drawing()) == 0
    drawn = [line.split() for line in (tmp_path / "drawn").read_text().splitlines()]
    assert [step for step, _ in drawn] == [*"01234", *"34567"], "killed in batch 5, continued at batch 3"
    assert drawn[3:5] == drawn[5:7], "the same steps draw the same"
    assert len({value for _, value in drawn}) == 8, "different steps do not"


def fit_rank(rank, world, command, log, keys):
    """One of several ranks, as torchrun would start it; what it reads goes to a file of its own."""
    child([*command, "--trainer.devices", str(world)], Path(f"{log}{rank}"), keys_read(Path(f"{keys}{rank}")))


def test_another_number_of_ranks_still_reads_each_sample_once(demo_shards, tmp_path):
    """Nine batches of 16 on one rank, then two ranks with 6 each."""
    command = arguments("ijepa", tmp_path / "run", demo_shards, "--ckpt_path", "last", "--trainer.max_steps")
    assert run([*command, "9"], tmp_path / "log", keys_read(tmp_path / "keys")) == 0
    more = [*command, "13", "--data.batch_size", "6"]
    assert end(start(fit_rank, 2, more, str(tmp_path / "log"), str(tmp_path / "keys"))) == [0, 0]
    assert "6 x 2 ranks, was 16 x 1: epoch 1 goes on" in (tmp_path / "log0").read_text()
    read = [line for name in ("keys", "keys0", "keys1") for line in (tmp_path / name).read_text().splitlines()]
    second = [line for line in read if line.startswith("1 ")]
    assert len(second) == len(set(second)) == 96

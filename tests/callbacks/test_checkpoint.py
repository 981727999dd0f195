"""Checkpoints are whole or not there, `last.ckpt` is one of them, and old ones go by rule."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from jepa_pretrain.callbacks.checkpoint import Checkpoints, newest
from jepa_pretrain.callbacks.place import Place
from jepa_pretrain.contracts import UserError


class Trainer(SimpleNamespace):
    """As much of a trainer as the callback asks."""

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        assert weights_only is False
        path.parent.mkdir(exist_ok=True)
        torch.save({"step": self.global_step}, path)
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def trainer(tmp_path):
    return Trainer(
        global_step=0, default_root_dir=str(tmp_path), is_global_zero=True, sanity_checking=False, full=False
    )


@pytest.fixture
def checkpoints(trainer):
    """Makes the callback, with its training begun."""
    made = []

    def make(**options) -> Checkpoints:
        made.append(Checkpoints(**options))
        made[-1].setup(trainer, None, "fit")
        made[-1].on_train_start(trainer, None)
        return made[-1]

    yield make
    for one in made:
        one.teardown(trainer, None, "fit")


def step(callback: Checkpoints, trainer: Trainer, count: int = 1, clean: bool = True) -> None:
    """Steps, up to the beginning of the one that follows."""
    for _ in range(count):
        trainer.global_step += 1
        callback.place = Place(0, trainer.global_step, trainer.global_step, trainer.global_step) if clean else None
        callback.on_train_batch_start(trainer, None, None, 0)


def last(folder: Path) -> int | None:
    path = folder / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)["step"] if path.exists() else None


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_written_every_so_many_steps_after_validation_and_at_the_end(checkpoints, trainer, tmp_path):
    callback = checkpoints(every=3)
    step(callback, trainer, 2)
    assert last(tmp_path) is None
    step(callback, trainer)
    assert last(tmp_path) == 3
    trainer.global_step += 1
    callback.on_validation_end(trainer, None)
    assert last(tmp_path) == 3, "the validation's metrics are not logged yet"
    callback.on_train_batch_start(trainer, None, None, 0)
    assert last(tmp_path) == 4
    step(callback, trainer)
    callback.on_train_end(trainer, None)
    assert last(tmp_path) == 5


def test_never_written_while_gradients_wait(checkpoints, trainer, tmp_path):
    callback = checkpoints(every=1)
    step(callback, trainer, 3, clean=False)
    assert last(tmp_path) is None


def test_the_latest_and_the_round_ones_are_kept(checkpoints, trainer, tmp_path):
    step(checkpoints(every=2, keep=2, keep_every=8), trainer, 21)
    assert kept(tmp_path) == ["last.ckpt", *(f"step-{n:09d}.ckpt" for n in (8, 16, 18, 20))]
    assert last(tmp_path) == 20
    assert (tmp_path / "checkpoints" / "last.ckpt").is_symlink()


def test_a_run_that_went_back_keeps_what_it_writes_now(checkpoints, trainer, tmp_path):
    step(checkpoints(every=10, keep=2), trainer, 40)
    trainer.global_step = 5
    step(checkpoints(every=10, keep=2), trainer, 10)
    assert last(tmp_path) == 15
    assert kept(tmp_path) == ["last.ckpt", "step-000000015.ckpt", "step-000000040.ckpt"]
    assert newest(tmp_path).name == "step-000000015.ckpt"


def test_full_disk_keeps_the_one_before(checkpoints, trainer, tmp_path):
    callback = checkpoints(every=1)
    step(callback, trainer)
    trainer.full = True
    with pytest.raises(UserError, match=r"No space left.*last\.ckpt is the one before"):
        step(callback, trainer)
    assert kept(tmp_path) == ["last.ckpt", "step-000000001.ckpt"]
    assert last(tmp_path) == 1


def test_what_a_killed_writer_left_is_cleared_away(checkpoints, trainer, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-000000009.ckpt.part").write_bytes(b"half")
    step(checkpoints(every=1), trainer)
    assert kept(tmp_path) == ["last.ckpt", "step-000000001.ckpt"]


def test_a_damaged_one_gives_way_to_the_one_before(checkpoints, trainer, tmp_path, capsys):
    assert newest(tmp_path) is None
    step(checkpoints(every=1, keep=3), trainer, 2)
    path = tmp_path / "checkpoints" / "step-000000002.ckpt"
    path.write_bytes(path.read_bytes()[:100])
    assert newest(tmp_path).name == "step-000000001.ckpt"
    assert "truncated" in capsys.readouterr().out
    (tmp_path / "checkpoints" / "step-000000001.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match="no other"):
        newest(tmp_path)


def test_senseless_settings_are_refused():
    for options in ({"every": 0}, {"keep": 0}, {"keep_every": -1}):
        with pytest.raises(UserError, match="or more"):
            Checkpoints(**options)

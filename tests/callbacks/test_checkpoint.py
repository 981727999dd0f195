"""The checkpoint is there while the run goes on, and a full disk leaves the one before untouched."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from jepa_pretrain.callbacks.checkpoint import Last
from jepa_pretrain.contracts import UserError


class Trainer(SimpleNamespace):
    """As much of a trainer as the callback asks."""

    def save_checkpoint(self, path: Path, weights_only: bool) -> None:
        assert weights_only is False
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"step {self.global_step}")
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def trainer(tmp_path):
    return Trainer(
        global_step=0, default_root_dir=str(tmp_path), is_global_zero=True, sanity_checking=False, full=False
    )


def steps(last, trainer, count):
    for _ in range(count):
        trainer.global_step += 1
        last.on_train_batch_end(trainer, None, None, None, 0)


def test_written_every_so_many_steps_at_validation_and_at_the_end(trainer, tmp_path):
    kept, last = tmp_path / "checkpoints" / "last.ckpt", Last(every=3)
    last.on_train_start(trainer, None)
    steps(last, trainer, 2)
    assert not kept.exists()
    steps(last, trainer, 1)
    assert kept.read_text() == "step 3"
    steps(last, trainer, 1)
    last.on_validation_end(trainer, None)
    assert kept.read_text() == "step 4"
    steps(last, trainer, 1)
    last.on_train_end(trainer, None)
    assert kept.read_text() == "step 5"


def test_full_disk_keeps_the_one_before(trainer, tmp_path):
    last = Last(every=1)
    last.on_train_start(trainer, None)
    steps(last, trainer, 1)
    trainer.full = True
    with pytest.raises(UserError, match=r"No space left.*untouched"):
        steps(last, trainer, 1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    assert (tmp_path / "checkpoints" / "last.ckpt").read_text() == "step 1"

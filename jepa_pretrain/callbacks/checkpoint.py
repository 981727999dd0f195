"""What a run can be continued from: checkpoints written whole, now and then, at the end, and when asked to stop.

    RUN/checkpoints/step-000002000.ckpt
    RUN/checkpoints/last.ckpt -> step-000002000.ckpt

A file appears under its name in one move, after its bytes have reached the disk, and `last.ckpt` is moved to it after
that; so `last.ckpt` is whole at every moment, whatever dies.
"""

import os
import re
import shutil
import zipfile
from pathlib import Path

from lightning.pytorch.callbacks import Checkpoint

from jepa_pretrain.callbacks.place import Place, after_batch, put_counters, put_loops
from jepa_pretrain.callbacks.stopping import CODES, Request, Stopped
from jepa_pretrain.contracts import UserError

NAME = re.compile(r"step-(\d+)\.ckpt")


class Checkpoints(Checkpoint):
    """Writes `RUN/checkpoints/last.ckpt`, which `--ckpt_path last` continues from, bit for bit on a CPU.

    It is written between two batches: every so many steps, after a validation, at the end of the run, and on Ctrl-C,
    SIGTERM and SIGUSR1, which stop the run. Several ranks agree on the step to stop at within four steps.

    Args:
        every: optimiser steps between two checkpoints.
        keep: how many of the latest are kept.
        keep_every: those of steps divisible by this number are kept for good; 0 for none.
    """

    def __init__(self, every: int = 1000, keep: int = 2, keep_every: int = 0) -> None:
        for name, least, value in (("every", 1, every), ("keep", 1, keep), ("keep_every", 0, keep_every)):
            if value < least:
                raise UserError(f"checkpoint.{name} is {least} or more, not {value}")
        self.every, self.keep, self.keep_every = every, keep, keep_every
        self.saved_at, self.validated = 0, False
        self.place: Place | None = None  # behind the batch that ended last, where a run can be continued
        self.continued: Place | None = None  # where this one begins, until its first batch

    def setup(self, trainer, module, stage: str) -> None:
        self.request = Request()
        self.request.listen()

    def teardown(self, trainer, module, stage: str) -> None:
        self.request.restore()

    def on_load_checkpoint(self, trainer, module, checkpoint: dict) -> None:
        if "place" not in checkpoint:
            raise UserError("this checkpoint does not say where its run stood: an older version wrote it")
        place, data = Place(*checkpoint["place"]), checkpoint["data"]
        batch, scale = trainer.datamodule.resume(place.epoch, place.batch, data)
        self.continued = place._replace(batch=batch, batches=round(place.batches * scale))
        put_loops(checkpoint, self.continued)

    def on_save_checkpoint(self, trainer, module, checkpoint: dict) -> None:
        checkpoint["place"], checkpoint["data"] = list(self.place), trainer.datamodule.standing()

    def on_train_start(self, trainer, module) -> None:
        self.saved_at, self.place = trainer.global_step, self.continued or Place(0, 0, 0, 0)
        self.request.training = True
        self.request.listen()  # Lightning has put itself in between, and would talk to other ranks inside the signal
        if trainer.is_global_zero:
            for part in _folder(trainer).glob("*.part"):
                _remove(part)

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        """Between two batches."""
        if self.continued:
            put_counters(trainer, self.continued)
            self.continued = None
        if self.place is None:
            return
        asked = self.request.agreed(trainer.global_step)
        due = self.validated or trainer.global_step - self.saved_at >= self.every
        if (due or asked) and trainer.global_step > self.saved_at:
            self.save(trainer)
        if asked:
            raise Stopped(f"stopped at step {trainer.global_step}", CODES[asked])

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.place = after_batch(trainer)

    def on_validation_end(self, trainer, module) -> None:
        self.validated = self.request.training and not trainer.sanity_checking

    def on_train_end(self, trainer, module) -> None:
        self.request.training = False
        if trainer.global_step > self.saved_at and self.place is not None:
            self.save(trainer)

    def save(self, trainer) -> None:
        """Write a checkpoint beside its place, move it there, let `last.ckpt` point at it, remove old ones."""
        path = _folder(trainer) / f"step-{trainer.global_step:09d}.ckpt"
        part = path.with_name(path.name + ".part")
        self.saved_at, self.validated = trainer.global_step, False
        try:
            trainer.save_checkpoint(part, weights_only=False)  # with the optimiser
            if trainer.is_global_zero:
                _publish(part, path)
                self._prune(path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            if isinstance(error, RuntimeError) and "file" not in str(error):
                raise
            _remove(part)
            before = path.with_name("last.ckpt")
            before = f"{before.name} is the one before" if before.exists() else "there is none before it"
            raise UserError(
                f"cannot write the checkpoint of step {trainer.global_step} to {path} ({_reason(error)}); {before}: "
                "free some space and go on with --ckpt_path last"
            ) from error

    def _prune(self, newest: Path) -> None:
        found = {path: int(match[1]) for path in newest.parent.iterdir() if (match := NAME.fullmatch(path.name))}
        by_age = sorted(found, key=lambda path: path.stat().st_mtime_ns)  # a run may have gone back to an earlier step
        for path in by_age[: -self.keep]:
            kept = self.keep_every and found[path] % self.keep_every == 0
            if path != newest and not kept:
                _remove(path)


def newest(folder: Path) -> Path | None:
    """The checkpoint of a run folder to go on from; an older one, which is said, where the newest is damaged."""
    last = folder / "checkpoints" / "last.ckpt"
    older = sorted(last.parent.glob("step-*.ckpt"), reverse=True)
    found = [last.resolve(), *older] if last.exists() else older
    whole = next((path for path in found if is_whole(path)), None)
    if whole is None and found:
        raise UserError(f"{found[0]} is truncated or not a checkpoint, and there is no other in {last.parent}")
    if whole is not None and whole != found[0]:
        print(f"{found[0]} is truncated or not a checkpoint: going on from {whole.name}", flush=True)
    return whole


def is_whole(path: Path) -> bool:
    """Whether a checkpoint has its end; a folder is one of a sharded strategy."""
    return path.is_dir() or zipfile.is_zipfile(path)


def _folder(trainer) -> Path:
    return Path(trainer.default_root_dir) / "checkpoints"


def _publish(part: Path, path: Path) -> None:
    """Put a finished checkpoint in its place and `last.ckpt` on it; each step is whole or did not happen."""
    _sync(part)
    if path.is_dir():  # a strategy that writes folders, and a step that is reached a second time
        shutil.rmtree(path)
    os.replace(part, path)
    link = path.with_name("last.ckpt.part")
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    os.replace(link, path.with_name("last.ckpt"))
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _reason(error: OSError | RuntimeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error).splitlines()[0]

"""What a run can be continued from: one checkpoint, written whole, now and then, at the end, and on Ctrl-C."""

import os
import signal
from pathlib import Path

from lightning.pytorch.callbacks import Checkpoint

from jepa_pretrain.contracts import UserError


class Stopped(Exception):
    """The user pressed Ctrl-C and the checkpoint is written."""


class Last(Checkpoint):
    """Keeps `RUN/checkpoints/last.ckpt`, which `--ckpt_path last` continues from.

    Lightning's own callback writes `last.ckpt` only together with a best-k checkpoint, and to a full disk it leaves
    half a file in the place of the good one. Ctrl-C stops after the running step, with a checkpoint; pressed again,
    at once and without one. (On one device: several processes would not agree on the step.)

    Args:
        every: optimiser steps between two checkpoints; it is written at every validation and at the end as well.
    """

    def __init__(self, every: int = 1000) -> None:
        if every < 1:
            raise UserError(f"checkpoint.every counts steps, so it is 1 or more, not {every}")
        self.every = every
        self.training = self.asked = False
        self.saved_at = 0
        self._previous = signal.SIG_DFL

    def setup(self, trainer, module, stage: str) -> None:
        """Before the data workers start, since they inherit the handler: the key reaches them as well."""
        if trainer.world_size > 1:
            return
        self.owner = os.getpid()
        self._previous = signal.signal(signal.SIGINT, self._on_signal)

    def teardown(self, trainer, module, stage: str) -> None:
        if trainer.world_size == 1:
            signal.signal(signal.SIGINT, self._previous)

    def _on_signal(self, number: int, frame) -> None:
        if os.getpid() != self.owner:  # a data worker: the training process decides
            return
        if self.asked or not self.training:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this step, with a checkpoint; Ctrl-C again stops at once", flush=True)

    def on_train_start(self, trainer, module) -> None:
        self.training, self.saved_at = True, trainer.global_step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if trainer.global_step - self.saved_at >= self.every:
            self.save(trainer)
        if self.asked:
            self.save(trainer)

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        """Leave here and not at the end of the step before, whose metrics were logged after that."""
        self._leave(trainer)

    def on_train_epoch_end(self, trainer, module) -> None:
        self._leave(trainer)

    def on_validation_start(self, trainer, module) -> None:
        self._leave(trainer)

    def _leave(self, trainer) -> None:
        if self.asked and self.saved_at == trainer.global_step:
            raise Stopped(f"stopped at step {trainer.global_step}")

    def on_validation_end(self, trainer, module) -> None:
        if self.training and not trainer.sanity_checking and trainer.global_step > self.saved_at:
            self.save(trainer)

    def on_train_end(self, trainer, module) -> None:
        self.training = False
        if trainer.global_step > self.saved_at:
            self.save(trainer)

    def save(self, trainer) -> None:
        """Write the checkpoint beside its place, then move it there."""
        path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        part = path.with_name("last.ckpt.part")
        self.saved_at = trainer.global_step
        try:
            trainer.save_checkpoint(part, weights_only=False)  # with the optimiser
            if trainer.is_global_zero:
                os.replace(part, path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            part.unlink(missing_ok=True)
            if isinstance(error, RuntimeError) and "file" not in str(error):
                raise
            before = "the one before is untouched" if path.exists() else "there is none before it"
            raise UserError(
                f"cannot write the checkpoint of step {trainer.global_step} to {path} ({_reason(error)}); {before}: "
                "free some space and go on with --ckpt_path last"
            ) from error


def _reason(error: OSError | RuntimeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error).splitlines()[0]

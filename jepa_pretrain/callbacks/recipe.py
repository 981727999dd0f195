"""The resolved recipe beside the run, so that it can be run again: `RUN/config.yaml`."""

import itertools
import os
from pathlib import Path

from lightning.pytorch.cli import SaveConfigCallback


class Recipe(SaveConfigCallback):
    """Writes the resolved recipe when training starts, so that a run that never started leaves nothing behind.

    The checkpoint to continue from belongs to one start and stays out of it (`record.json` has it). A continued run
    with another recipe keeps the one before as `config-1.yaml`, `config-2.yaml`, ...
    """

    def setup(self, trainer, pl_module, stage: str) -> None:
        """Too early."""

    def on_train_start(self, trainer, pl_module) -> None:
        self.config = self.config.clone()
        self.config.ckpt_path = None
        folder = trainer.log_dir  # asks rank 0, so every rank has to
        if trainer.is_global_zero:
            _set_aside(Path(folder) / "config.yaml", self.parser.dump(self.config, skip_none=False))
        super().setup(trainer, pl_module, "fit")


def _set_aside(path: Path, recipe: str) -> None:
    """Keep a recipe that is about to be replaced by another one."""
    if path.exists() and path.read_text() != recipe:
        number = next(n for n in itertools.count(1) if not path.with_stem(f"config-{n}").exists())
        os.rename(path, path.with_stem(f"config-{number}"))

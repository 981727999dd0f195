"""Hands the encoder over at the end of a run."""

from pathlib import Path

import lightning

from jepa_pretrain.interop.export import write


class Export(lightning.Callback):
    """Writes the trained encoder to `RUN/export`, ready for `FrozenEncoder.load`."""

    def on_train_end(self, trainer, module) -> None:
        if trainer.is_global_zero:
            write(module.exported, Path(trainer.default_root_dir) / "export", module.provenance())

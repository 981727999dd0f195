"""Hands the encoder over at the end of a run."""

from pathlib import Path

import lightning

from jepa_pretrain.interop.architectures import build
from jepa_pretrain.interop.export import write
from jepa_pretrain.interop.weights import fill, shapes
from jepa_pretrain.methods.sharding import plain_class, whole_weights

SOURCE = "the trained encoder"


class Export(lightning.Callback):
    """Writes the trained encoder to `RUN/export`, ready for `FrozenEncoder.load`."""

    def on_train_end(self, trainer, module) -> None:
        weights = whole_weights(module.exported)  # by all ranks: each may hold a share
        if trainer.is_global_zero:
            description = {"class": plain_class(module.exported).__name__, "args": module.exported.config}
            encoder = build(description, shapes(weights), SOURCE)
            fill(encoder, weights, SOURCE)
            write(encoder, Path(trainer.default_root_dir) / "export", module.provenance())

"""The record of a run: what every start of it ran on, in `RUN/record.json`, beside the recipe."""

import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import lightning

from jepa_pretrain import distributed
from jepa_pretrain.callbacks import machine
from jepa_pretrain.methods.base import git_revision


class Starts(lightning.Callback):
    """Appends an entry to `RUN/record.json` when training starts: code, packages, data, seed, machine, command.

    A run that is continued keeps the entries before.
    """

    def on_train_start(self, trainer, module) -> None:
        hosts = distributed.gather_objects(platform.node())
        if not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / "record.json"
        starts = _read(path)
        entry = _entry(trainer) | {"hosts": list(dict.fromkeys(hosts))}
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"starts": [*starts, entry]}, indent=1) + "\n")
        os.replace(part, path)


def _entry(trainer) -> dict[str, object]:
    """One start."""
    revision = git_revision()
    data = trainer.datamodule.provenance()
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "folder": os.getcwd(),
        "from_step": trainer.global_step,
        "from_checkpoint": trainer.ckpt_path,
        "git": {"revision": revision.rstrip("+"), "changed": revision.endswith("+")},
        "seed": os.environ.get("PL_GLOBAL_SEED"),
        "data": {name: what for name, what in data.items() if name != "classes"},
        "packages": machine.packages(),
        "hardware": machine.hardware(),
        "arithmetic": machine.arithmetic() | {"precision": trainer.precision},
        "world_size": trainer.world_size,
        "strategy": type(trainer.strategy).__name__,
    }


def _read(path: Path) -> list[dict]:
    """The starts so far; a file that is damaged is put aside and not overwritten."""
    if not path.exists():
        return []
    try:
        return json.loads(path.read_text())["starts"]
    except (ValueError, KeyError, TypeError):
        os.replace(path, path.with_suffix(".damaged.json"))
        return []

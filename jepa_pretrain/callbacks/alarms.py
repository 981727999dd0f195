"""Alarms: what goes wrong in a run, in plain words, as warnings and as lines of `RUN/alarms.jsonl`."""

import json
import math
import os
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn


@rank_zero_only
def raise_alarm(folder: str | Path, step: int, kind: str, message: str, value: float) -> None:
    """Warn, and append a line to the run's alarms.

    Args:
        folder: the run folder.
        step: the optimiser step that gave the alarm, counted from 0 as in `metrics.csv`.
        kind: one word: `skipped`, `spike` or `collapse`.
        message: what happened and what helps.
        value: the number behind it.
    """
    rank_zero_warn(f"step {step}: {message}")
    line = {"step": step, "kind": kind, "message": message, "value": plain(value)}
    path = _path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


@rank_zero_only
def drop_alarms(folder: str | Path, step: int) -> None:
    """Drop the alarms at or after the step where a run goes on: these steps are run again.

    Args:
        folder: the run folder.
        step: the first step that is run again; 0 drops all.
    """
    path = _path(folder)
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines(True) if _step(line) < step]
    part = path.with_suffix(".part")
    part.write_text("".join(kept))
    os.replace(part, path)


def plain(value: float) -> float | str:
    """A number as strict JSON can hold it: `nan` and `inf` in words."""
    return value if math.isfinite(value) else str(value)


def _path(folder: str | Path) -> Path:
    return Path(folder) / "alarms.jsonl"


def _step(line: str) -> float:
    """The step of a line; later than any where the line is torn, as a killed process leaves it."""
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return math.inf

"""Runs of `jepa-pretrain fit` in forked processes that can be killed at a chosen moment, and what they leave behind.

Forked, because a fresh Python needs ten seconds to import torch and Lightning; what a child changes stays in it.
"""

import csv
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from jepa_pretrain.cli import main
from jepa_pretrain.methods.base import Method

ROOT = Path(__file__).parents[2]
STEPS = 20  # more than three epochs of the 96 pictures in batches of 16
OF_THE_CLOCK = ("train/images_per_second",)


def arguments(recipe: str, run: Path, data: Path, *more: str) -> list[str]:
    """The command line of a debug recipe with everything that a checkpoint has to keep."""
    sides = ("init_args.videos.init_args.", "init_args.pictures.init_args.") if recipe == "mixed" else ("",)
    places = [(f"--data.{side}{part}", f"{data}/{part}-*.tar") for side in sides for part in ("train", "val")]
    return [
        *("fit", "--config", str(ROOT / f"recipes/debug/{recipe}.yaml"), "--run", str(run)),
        *(word for place in places for word in place),
        *("--trainer.max_steps", str(STEPS), "--checkpoint.every", "3", "--collapse.every", "2", "--knn.bank", "40"),
        *("--trainer.val_check_interval", "4", "--trainer.check_val_every_n_epoch", "null"),
        *more,
    ]


def run(arguments: list[str], log: Path, fault: Callable[[], None] | None = None) -> int:
    """Exit code of a run; minus the number of the signal that ended it.

    Args:
        arguments: of `jepa-pretrain`.
        log: where its output goes.
        fault: called in the child before it starts, to arrange what goes wrong.
    """
    process = start(arguments, log, fault)
    process.join(600)
    assert process.exitcode is not None, f"still running: {log.read_text()}"
    return process.exitcode


def start(arguments: list[str], log: Path, fault: Callable[[], None] | None = None) -> multiprocessing.Process:
    """A run that goes on beside the test."""
    process = multiprocessing.get_context("fork").Process(target=child, args=(arguments, log, fault))
    process.start()
    return process


def child(arguments: list[str], log: Path, fault: Callable[[], None] | None) -> None:
    """What a forked process does; see `run`."""
    torch.set_num_threads(1)  # OpenMP's other threads did not survive the fork
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    if fault:
        fault()
    sys.exit(main(arguments))


def at_batch(number: int, act: Callable[[], None]) -> Callable[[], None]:
    """A fault: `act` in the midst of the training step of a batch, counted from 0 over the whole run."""

    def arrange() -> None:
        whole = Method.training_step

        def training_step(self: Method, batch, batch_idx):
            if self.trainer.fit_loop.total_batch_idx == number:
                act()
            return whole(self, batch, batch_idx)

        Method.training_step = training_step

    return arrange


def kill() -> None:
    """SIGKILL to this process: nothing of it gets to do anything any more."""
    os.kill(os.getpid(), signal.SIGKILL)


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two finished runs: checkpoint, curve and exported encoder; equal is bit-equal."""
    first, second = (_checkpoint(folder) for folder in (one, other))
    found = [f"checkpoint: {where}" for where in _unequal(first, second, "")]
    if _curve(one) != _curve(other):
        found.append(f"curve: {_curve(one)} / {_curve(other)}")
    weights = "export/model.safetensors"
    if (one / weights).read_bytes() != (other / weights).read_bytes():
        found.append("export")
    return found


def _checkpoint(folder: Path) -> dict:
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    content.pop("export")  # names the run and its metrics
    content.pop("loops")  # Lightning's counters, which are rewritten from `place`
    return content


def _unequal(one, other, where: str) -> list[str]:
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [where]
    if isinstance(one, dict):
        if not isinstance(other, dict) or one.keys() != other.keys():
            return [f"{where}: other keys"]
        return [text for key in one for text in _unequal(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{where}: {len(one)} and {len(other)} entries"]
        return [text for i, pair in enumerate(zip(one, other, strict=True)) for text in _unequal(*pair, f"{where}/{i}")]
    return [] if one == other else [f"{where}: {one!r} and {other!r}"]


def _curve(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if value and key not in OF_THE_CLOCK} for row in rows]

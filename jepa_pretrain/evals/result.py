"""The outcome of an evaluation: a table for people, JSON for everything else."""

import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from jepa_pretrain.contracts import UserError
from jepa_pretrain.evals.interval import wilson

CONFIDENCE = 0.95


def check_out(out: str | None) -> None:
    """Refuse an output place that cannot be written, before hours are spent.

    Args:
        out: A file, or a folder (one that exists, or a name that ends in `/`, which is made); None for no file.
    """
    if out is None:
        return
    folder = Path(out) if out.endswith("/") or Path(out).is_dir() else Path(out).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write {out}: no permission in {folder}")


def summary(protocol: str, encoder: nn.Module, train: Tensor, test: Tensor, hits: int) -> dict[str, Any]:
    """What every evaluation states; accuracies are in percent.

    Args:
        protocol: `linear`, `knn` or `attentive`.
        encoder: What was evaluated.
        train: `(n,)` labels of the training samples.
        test: `(m,)` labels of the test samples.
        hits: Test samples classified rightly.
    """
    n, counts = len(test), torch.bincount(test)
    return stated(protocol, encoder, len(train), n, train.device) | {
        "top1": 100 * hits / n,
        "interval": [100 * bound for bound in wilson(hits, n)],
        "confidence": CONFIDENCE,
        "majority": 100 * counts.max().item() / n,
        "classes": int((counts > 0).sum()),
    }


def stated(protocol: str, encoder: nn.Module, train: int, test: int, device: torch.device) -> dict[str, Any]:
    """What was evaluated, on how much, and with what.

    Args:
        protocol: Name of the evaluation.
        encoder: What was evaluated.
        train: Training samples.
        test: Test samples.
        device: Where.
    """
    return {
        "protocol": protocol,
        "encoder": encoder.name,
        "untrained": encoder.untrained,
        "architecture": encoder.config,
        "provenance": {key: encoder.provenance.get(key) for key in ("method", "run", "step", "git")},
        "train_samples": train,
        "test_samples": test,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def show(result: dict[str, Any], console: Console, rows: list[tuple[str, str]]) -> None:
    """Print the outcome.

    Args:
        result: As `summary` gave it, and more.
        console: Where to.
        rows: What this protocol adds, name and text.
    """
    low, high = result["interval"]
    table = Table(
        title=f"{result['protocol']} evaluation of {result['encoder']}", show_header=False, title_justify="left"
    )
    table.add_row("top-1", f"{result['top1']:.2f} %   (95 % interval {low:.2f} to {high:.2f})")
    for name, text in rows:
        table.add_row(name, text)
    table.add_row("largest class", f"{result['majority']:.2f} %")
    table.add_row("samples", f"{result['train_samples']} train, {result['test_samples']} test")
    table.add_row("encoder digest", result["digest"][:16])
    console.print(table)


def write(result: dict[str, Any], out: str | None, console: Console) -> None:
    """Write the outcome as JSON, in one move.

    Args:
        result: The outcome.
        out: A file, or an existing folder for `PROTOCOL-ENCODER.json`; None for no file.
        console: Where to say so.
    """
    if out is None:
        return
    path = Path(out)
    if path.is_dir():
        plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in result["encoder"]).strip("_.")
        path = path / f"{result['protocol']}-{plain}.json"
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps(result, indent=2) + "\n")
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    console.print(f"Written to {path}", highlight=False, soft_wrap=True)

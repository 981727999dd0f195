"""The curves of a run, drawn as SVG that is readable on light and on dark ground."""

import base64
import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

from jepa_pretrain.contracts import UserError
from jepa_pretrain.untrusted import MIB, printable, read_text

LARGEST = 64 * MIB  # bytes of a metrics.csv
GREY = "#8a8a8a"
MARK = "#ef4444"
COLOURS = ("#3b82f6", "#f59e0b", "#10b981", "#ec4899")
STYLE = {
    "svg.hashsalt": "jepa",
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 11,
    "legend.frameon": False,
}
Series = list[tuple[int, float]]  # step, value


class Panel(NamedTuple):
    """One drawing and what is on it."""

    title: str
    axis: str
    series: dict[str, str]  # column of the log: its name on the page


PANELS = (
    Panel("Loss", "training loss", {"train/loss": "loss"}),
    Panel("Effective rank", "dimensions in use", {"train/rank": "effective rank"}),
    Panel("Deviation", "per dimension", {"train/std": "features", "train/target_std": "targets"}),
    Panel("Online probes", "top-1, %", {"probe/linear_top1": "linear", "probe/knn_top1": "k-NN"}),
)


def read(path: Path) -> dict[str, Series]:
    """The columns of a metrics file, each with the steps where it was logged.

    Args:
        path: `metrics.csv` of a run: a column `step`, empty cells where nothing was logged.

    Raises:
        UserError: The file is not such a table.
    """
    columns: dict[str, Series] = {}
    rows = csv.DictReader(read_text(path, LARGEST).splitlines())
    try:
        for row in rows:
            step = int(float(row["step"]))
            for name, text in row.items():
                if name != "step" and text:
                    columns.setdefault(name, []).append((step, float(text)))
    except (KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
        reason = printable(repr(error))[:200]
        raise UserError(f"{path}, line {rows.line_num} is not a row of metrics ({reason})") from None
    return columns


def smooth(series: Series, points: int = 25) -> Series:
    """Exponential average over about a `points`-th of the curve, without the bias of its start.

    Args:
        series: Steps and values, all finite.
        points: How many averages fit into the curve.
    """
    keep = 1 - 1 / max(1, len(series) / points)
    total = weight = 0.0
    averaged = []
    for step, value in series:
        total, weight = keep * total + value, keep * weight + 1
        averaged.append((step, total / weight))
    return averaged


def draw(panel: Panel, columns: dict[str, Series], marks: Sequence[int] = ()) -> str | None:
    """A panel as a data address, or None where nothing of it was logged.

    Args:
        panel: What to draw.
        columns: As read from the metrics file.
        marks: Steps that get a vertical line.
    """
    found = {name: columns[key] for key, name in panel.series.items() if columns.get(key)}
    if not found:
        return None
    with rc_context(STYLE):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        axes = figure.subplots()
        for colour, (name, series) in zip(COLOURS, found.items(), strict=False):
            finite = [(step, value) for step, value in series if math.isfinite(value)]
            if len(finite) > 100:
                axes.plot(*zip(*finite, strict=True), color=colour, alpha=0.3, linewidth=0.8)
                finite = smooth(finite)
            if finite:
                dots = "o" if len(finite) < 30 else None
                axes.plot(*zip(*finite, strict=True), color=colour, label=name, marker=dots, markersize=3)
        for step in marks:
            axes.axvline(step, color=MARK, linewidth=1.0, linestyle="--", alpha=0.8)
        axes.set(xlabel="step", ylabel=panel.axis)
        axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
        axes.margins(x=0.02)
        if len(found) > 1:
            axes.legend()
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()


def warnings(columns: dict[str, Series]) -> list[str]:
    """What the curves say of collapse and divergence, in plain words.

    Args:
        columns: As read from the metrics file.
    """
    found = []
    loss, rank, std = (columns.get(f"train/{name}", []) for name in ("loss", "rank", "std"))
    if loss and not math.isfinite(loss[-1][1]):
        found.append(f"The loss is no longer a number at step {loss[-1][0]}: the training has diverged.")
    if rank and not rank[-1][1] >= 2:  # also true of NaN
        found.append(f"The features have collapsed: their effective rank ends at {rank[-1][1]:.1f}.")
    if std and std[-1][1] < 1e-3:
        found.append(f"The features are almost constant: their deviation ends at {std[-1][1]:.1e}.")
    return found

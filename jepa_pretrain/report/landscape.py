"""The energy landscape of a hierarchy: what followed should be low, what followed elsewhere high, at every level."""

import base64
import html
import io

from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from jepa_pretrain.models.energy import Landscape, auroc, landscapes
from jepa_pretrain.models.hierarchy import Hierarchy
from jepa_pretrain.report.curves import COLOURS, GREY, STYLE

COLUMNS = 3  # horizons that are drawn, from the first to the last


def energies(hierarchy: Hierarchy, clips: Tensor, actions: Tensor | None = None) -> str:
    """Histograms and a table of the AUROC at each level and horizon, as HTML.

    Args:
        hierarchy: A trained hierarchy, in evaluation mode.
        clips: `(B, C, T, H, W)` uint8, two or more.
        actions: `(B, T, A)`, or None.
    """
    drawn = landscapes(hierarchy, clips, actions)
    longest = max(one.true.shape[1] for one in drawn)
    head = "".join(f"<th class='number'>{h}</th>" for h in range(1, longest + 1))
    rows = "".join(f"<tr><td>level {n}</td>{_scores(one, longest)}</tr>" for n, one in enumerate(drawn, start=1))
    table = f"<table><tr><th>AUROC by steps of the level</th>{head}</tr>{rows}</table>"
    return f"<figure><img alt='energies by level and horizon' src='{histograms(drawn)}'></figure>{table}"


def histograms(drawn: list[Landscape]) -> str:
    """Energies of true and shuffled futures, a row for each level, as a data address.

    Args:
        drawn: One landscape for each level, lowest first.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 2.2 * len(drawn)), layout="constrained")
        grid = figure.subplots(len(drawn), COLUMNS, squeeze=False)
        for number, (axes, one) in enumerate(zip(grid, drawn, strict=True), start=1):
            shown = _horizons(one.true.shape[1])
            for place, horizon in zip(axes, shown, strict=False):
                pair = [part[:, horizon - 1].float().cpu().numpy() for part in one]
                place.hist(
                    pair, bins=20, label=("true", "shuffled"), color=COLOURS[:2], histtype="stepfilled", alpha=0.6
                )
                steps = f"{horizon} step{'s' * (horizon > 1)}"
                place.set_title(f"level {number}, {steps}: AUROC {_score(one, horizon):.2f}", fontsize=10, color=GREY)
            for place in axes[len(shown) :]:
                place.set_visible(False)
        grid[0][0].legend()
        return _address(figure)


def fork(line: Tensor) -> str:
    """Mean energy along the way from one future to the other, as a data address; from `models.energy.between`.

    Args:
        line: `(B, points)`.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        axes = figure.subplots()
        mean, spread = line.mean(0).cpu(), line.std(0).cpu()
        place = [i / (len(mean) - 1) for i in range(len(mean))]
        axes.fill_between(place, mean - spread, mean + spread, color=COLOURS[0], alpha=0.2, linewidth=0)
        axes.plot(place, mean, color=COLOURS[0])
        axes.set(xlabel="from one future (0) to the other (1)", ylabel="energy")
        return _address(figure)


def _horizons(longest: int) -> list[int]:
    """Up to three: the first, one in the middle, the last."""
    return sorted({1, (longest + 1) // 2, longest})


def _score(one: Landscape, horizon: int) -> float:
    return auroc(one.true[:, horizon - 1], one.shuffled[:, horizon - 1])


def _scores(one: Landscape, columns: int) -> str:
    known = [f"{_score(one, horizon):.3f}" for horizon in range(1, one.true.shape[1] + 1)]
    cells = known + [""] * (columns - len(known))
    return "".join(f"<td class='number'>{html.escape(cell)}</td>" for cell in cells)


def _address(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()

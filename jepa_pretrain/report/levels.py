"""What every level of a hierarchy thought in one decision: a map, and the recorded frames nearest to its sub-goals."""

import base64
import io

from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from jepa_pretrain.agent.show import Episode, Level, Thought
from jepa_pretrain.report.curves import COLOURS, STYLE
from jepa_pretrain.report.tiles import png

SHEET = """.levels { display: grid; grid-template-columns: minmax(0, 15rem) 1fr; gap: 1rem; margin-bottom: 1.2rem; }
.levels .tiles { grid-template-columns: repeat(4, minmax(0, 6rem)); }
@media (max-width: 44rem) { .levels { grid-template-columns: 1fr; } }"""
PATHS = COLOURS[1:]  # of the second level and up; the lowest has the first colour


def decided(episode: Episode, thought: Thought) -> str:
    """One decision as HTML; nothing where neither levels nor places are known.

    Args:
        episode: where it belongs.
        thought: the decision.
    """
    if not thought.levels and thought.places is None:
        return ""
    drawn = ""
    if thought.places is not None:
        address = _map(episode.frames[thought.step], thought)
        drawn = f"<figure><img alt='map of step {thought.step}' src='{address}'></figure>"
    rows = "".join(_row(one, thought.step) for one in reversed(thought.levels))
    return f"<h3>Decided at step {thought.step}</h3><div class='levels'>{drawn}<div>{rows}</div></div>"


def _row(level: Level, step: int) -> str:
    """The frames of one level, with the time at which it wants to be there."""
    words = f"level {level.number}, {level.block} steps at a time"
    if not len(level.frames):
        return f"<p class='soft'>{words}: nothing to add, the goal is near</p>"
    tiles = "".join(
        f"<figure><img class='pixels' alt='level {level.number}, sub-goal {i + 1}' src='{png(frame)}'>"
        f"<figcaption>{i + 1}: step {step + (i + 1) * level.block}</figcaption></figure>"
        for i, frame in enumerate(level.frames)
    )
    return f"<p class='soft'>{words}</p><div class='tiles'>{tiles}</div>"


def _map(frame: Tensor, thought: Thought) -> str:
    """Ways on top of what the agent saw, as a data address of an SVG."""
    with rc_context(STYLE):
        figure = Figure(figsize=(3, 3))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(frame.permute(1, 2, 0).cpu().numpy(), extent=(0, 1, 1, 0), interpolation="nearest", alpha=0.55)
        for way in thought.branches if thought.branches is not None else ():
            axes.plot(*way.T.tolist(), color=COLOURS[0], linewidth=0.7, alpha=0.35)
        axes.plot(*thought.places.T.tolist(), color=COLOURS[0], linewidth=2.2, marker="o", markersize=3)
        for level, colour in zip(thought.levels, PATHS * len(thought.levels), strict=False):
            for way in level.branches if level.branches is not None else ():
                axes.plot(*way.T.tolist(), color=colour, linewidth=0.7, alpha=0.4)
            _numbered(axes, level, colour)
        axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()


def _numbered(axes, level: Level, colour: str) -> None:
    """What a level wants to pass through, with numbers."""
    if level.places is None or not len(level.places):
        return
    x, y = level.places.T.tolist()
    axes.plot(x, y, color=colour, linewidth=1.6, linestyle="--")
    for i, (at, down) in enumerate(zip(x, y, strict=True), start=1):
        box = {"boxstyle": "round,pad=.18", "facecolor": colour, "edgecolor": "white", "linewidth": 0.6}
        axes.text(at, down, f"{i}", color="white", fontsize=7, ha="center", va="center", bbox=box)

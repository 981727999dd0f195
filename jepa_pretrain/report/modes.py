"""When and why an agent thought, and what surprised it, over one episode: a section of its page."""

import html
import io
from base64 import b64encode

from matplotlib import rc_context
from matplotlib.figure import Figure

from jepa_pretrain.agent.configurator import MODES, WHY
from jepa_pretrain.agent.show import Episode, Thought
from jepa_pretrain.report.curves import COLOURS, GREY, STYLE
from jepa_pretrain.report.sections import section

ABOUT = (
    "Above the surprise at each decision: the error of the last prediction, in units of what one in a hundred recorded "
    "ones exceeds. Below the mode: react with the policy, think little, think much. Every switch is listed with why."
)


def modes(episode: Episode) -> str:
    """The section; empty for an agent without a configurator."""
    chosen = [one for one in episode.thoughts if one.chosen is not None]
    if not chosen:
        return ""
    figure = f"<figure><img alt='surprise and mode by step' src='{drawn(chosen)}'></figure>"
    return section("Modes", ABOUT, figure + switches(chosen))


def switches(thoughts: list[Thought]) -> str:
    """A line for the first decision and for each at which the mode changed."""
    rows, before = [], None
    for one in thoughts:
        if one.chosen.mode != before:
            numbers = (
                f"surprise {one.chosen.surprise:.2f}, policy's gain {one.chosen.gain:.2f}, cost {one.chosen.cost:.2f}"
            )
            rows.append(f"<li>step {one.step}: <b>{MODES[one.chosen.mode]}</b>, {html.escape(WHY[one.chosen.why])} "
                        f"<span class='soft'>({numbers})</span></li>")  # fmt: skip
        before = one.chosen.mode
    return f"<ul>{''.join(rows)}</ul>"


def drawn(thoughts: list[Thought]) -> str:
    """Surprise and mode over the steps of the environment, as a data address."""
    steps = [one.step for one in thoughts]
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        above.plot(steps, [one.chosen.surprise for one in thoughts], color=COLOURS[0], marker="o", markersize=3)
        above.axhline(1, color=GREY, linewidth=0.8, linestyle="--")
        above.set_title("surprise", fontsize=10, color=GREY)
        below.step(steps, [one.chosen.mode for one in thoughts], where="post", color=COLOURS[1])
        below.set_yticks(range(len(MODES)), MODES)
        below.set_ylim(-0.3, len(MODES) - 0.7)
        below.set_xlabel("step")
        for axes in (above, below):
            axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + b64encode(stream.getvalue()).decode()

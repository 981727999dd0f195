"""An episode of an agent as a GIF and a self-contained page: what it saw, what it imagined, what it cost."""

import base64
import html
import io
import os
from pathlib import Path

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from jepa_pretrain.agent.show import Episode, Thought
from jepa_pretrain.contracts import UserError
from jepa_pretrain.report.curves import COLOURS, GREY, STYLE
from jepa_pretrain.report.levels import SHEET as MAPS
from jepa_pretrain.report.levels import decided
from jepa_pretrain.report.modes import modes
from jepa_pretrain.report.sections import section
from jepa_pretrain.report.style import STYLE as SHEET
from jepa_pretrain.report.tiles import enlarge, png

SHOWN = 4  # decisions spelt out on the page, spread over the episode
PAUSE = 120  # milliseconds per frame
TILES = ".tiles img { outline: 1px solid var(--line); }"  # white pictures end somewhere
ABOUT = {
    "Episode": "Left what it sees, in the middle what it expected to see at the end of the present block of actions, "
    "right the goal. Imagined states are shown by the recorded frame whose state is nearest.",
    "Imagined and real": "For a few decisions, above what the agent imagined step by step, below what it then saw.",
    "Levels": "For the same decisions. On the map, above what it saw: the imagined way of the "
    "lowest level (blue), what every upper level wants to pass through (orange, then green; 1 is the sub-goal of the "
    "level below), and faint other branches that were considered. Places are those "
    "of the recorded frames whose states are nearest, which are shown below.",
    "Energies": "Every term of the cost, of the state at each decision, unweighted.",
    "Candidate plans": "The plans it weighed last: the first two numbers of the actions summed up from where it "
    "stands, the second one downwards as in pictures; the best one thick.",
}


def show(episode: Episode, folder: str | Path, title: str = "An episode") -> Path:
    """Write `episode.gif` and `episode.html`.

    Args:
        episode: as a `Recorder` kept it.
        folder: where; earlier ones are replaced.
        title: heading of the page.

    Returns:
        The page.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = Path(folder)
    moving = gif(episode)
    page = folder / "episode.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (("episode.gif", moving), ("episode.html", _page(episode, moving, title).encode())):
            part = folder / f"{name}.part"
            part.write_bytes(content)
            os.replace(part, folder / name)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error}") from error
    return page


def gif(episode: Episode) -> bytes:
    """Three pictures side by side at every step of the environment: seen, expected, goal."""
    pictures = []
    for step, frame in enumerate(episode.frames):
        thought = _before(episode, step)
        row = torch.cat([enlarge(one) for one in (frame, thought.imagined[0], episode.goal)], dim=2)  # (3, H, 3 W)
        for edge in (1, 2):  # worlds without a border would run into each other
            row[:, :, edge * (row.shape[2] // 3)] = 160
        pictures.append(Image.fromarray(row.permute(1, 2, 0).cpu().numpy()))
    stream = io.BytesIO()
    pictures[0].save(stream, "gif", save_all=True, append_images=pictures[1:], duration=PAUSE, loop=0)
    return stream.getvalue()


def energies(episode: Episode) -> str:
    """One panel for each term of the cost over the steps of the environment, as a data address."""
    names = list(episode.thoughts[0].terms)
    steps = [one.step for one in episode.thoughts]
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 1.7 * len(names) + 0.4), layout="constrained")
        panels = figure.subplots(len(names), 1, squeeze=False, sharex=True)[:, 0]
        for axes, name in zip(panels, names, strict=True):
            values = [one.terms[name] for one in episode.thoughts]
            axes.plot(steps, values, color=COLOURS[0], marker="o", markersize=3)
            axes.set_title(name, fontsize=10, color=GREY)
            axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
        panels[-1].set_xlabel("step")
        return _address(figure)


def candidates(thoughts: list[Thought]) -> str:
    """Where the plans of some decisions would go, if actions were steps in a plane, as a data address."""
    with rc_context(STYLE):
        figure = Figure(figsize=(2.4 * len(thoughts), 2.5), layout="constrained")
        for axes, thought in zip(figure.subplots(1, len(thoughts), squeeze=False)[0], thoughts, strict=True):
            for number, plan in reversed(list(enumerate(thought.candidates))):
                path = torch.cat([torch.zeros(1, plan.shape[1]), plan.cpu().cumsum(0)])  # (L block + 1, a)
                x, y = (path[:, 0], path[:, 1]) if path.shape[1] > 1 else (torch.arange(len(path)), path[:, 0])
                colour, width = (COLOURS[1], 2.2) if number == 0 else (GREY, 0.8)
                axes.plot(x, y, color=colour, linewidth=width)
            if path.shape[1] > 1:
                axes.set_aspect("equal", adjustable="datalim")
                axes.invert_yaxis()
            axes.set_title(f"step {thought.step}", fontsize=10, color=GREY)
        return _address(figure)


def _page(episode: Episode, moving: bytes, title: str) -> str:
    spread = torch.linspace(0, len(episode.thoughts) - 1, min(SHOWN, len(episode.thoughts))).round().int().tolist()
    some = [episode.thoughts[i] for i in spread]
    address = "data:image/gif;base64," + base64.b64encode(moving).decode()
    unsafe = [str(one.step) for one in episode.thoughts if not one.safe]
    warning = (
        f"<p class='warn' role='alert'>No plan kept the guardrails at step {', '.join(unsafe)}.</p>" if unsafe else ""
    )
    drawn = "".join(decided(episode, one) for one in some)
    levels = [section("Levels", ABOUT["Levels"], drawn)] if drawn else []
    film = f"<figure><img class='film' alt='the episode, moving' src='{address}'></figure>"
    body = [
        f"<header><h1>{html.escape(title)}</h1></header>{warning}",
        section("Episode", ABOUT["Episode"], film),
        section("Imagined and real", ABOUT["Imagined and real"], "".join(_futures(episode, one) for one in some)),
        *levels,
        modes(episode),
        section("Energies", ABOUT["Energies"], f"<figure><img alt='terms by step' src='{energies(episode)}'></figure>"),
        section(
            "Candidate plans", ABOUT["Candidate plans"], f"<figure><img alt='plans' src='{candidates(some)}'></figure>"
        ),
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{SHEET}{TILES}{MAPS}</style></head><body>{''.join(body)}</body></html>"
    )


def _futures(episode: Episode, thought: Thought) -> str:
    """Two rows of pictures; real ones end where the episode does."""
    times = [thought.step + (i + 1) * episode.block for i in range(len(thought.imagined))]
    imagined = [_tile(one, "imagined", time) for one, time in zip(thought.imagined, times, strict=True)]
    seen = [_tile(episode.frames[time], "seen", time) for time in times if time < len(episode.frames)]
    rows = "".join(
        f"<p class='soft'>{words}</p><div class='tiles'>{''.join(tiles)}</div>"
        for words, tiles in (("imagined", imagined), ("seen", seen))
        if tiles
    )
    return f"<h3>Decided at step {thought.step}</h3>{rows}"


def _tile(picture: Tensor, words: str, time: int) -> str:
    image = f"<img class='pixels' alt='{words}, step {time}' src='{png(picture)}'>"
    return f"<figure>{image}<figcaption>step {time}</figcaption></figure>"


def _before(episode: Episode, step: int) -> Thought:
    """The last decision at or before a step."""
    return [one for one in episode.thoughts if one.step <= step][-1]


def _address(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()

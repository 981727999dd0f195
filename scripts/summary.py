"""What the quickstart ends with: tables of every probe and of the agent, then where encoders, agents and pages lie.

python scripts/summary.py runs/quickstart
"""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

NAMES = {"pixels": "raw pixels", "untrained": "untrained", "trained": "pretrained"}
ACTING = {"random": "random", "expert": "scripted, sees the truth", "planner": "planner with critic"}
PROTOCOLS = {"linear": "linear probe", "knn": "k-NN"}


def cell(run: Path, protocol: str, name: str) -> str:
    """Top-1 in percent and its 95 % interval."""
    result = json.loads((run / "eval" / f"{protocol}-{name}.json").read_text())
    low, high = result["interval"]
    return f"{result['top1']:.1f}  ({low:.1f}-{high:.1f})"


def table(runs: list[Path]) -> Table:
    """One row for each encoder, one column for each protocol."""
    shown = Table(title="Top-1 in percent on pictures never seen (95 % interval)", title_justify="left")
    shown.add_column("encoder")
    for words in PROTOCOLS.values():
        shown.add_column(words, justify="right")
    for place, run in enumerate(runs):
        for name, words in NAMES.items():
            if name == "pixels" and place > 0:
                continue  # the same for all runs
            label = words if name == "pixels" else f"{run.name}, {words}"
            last = name != "untrained"
            shown.add_row(label, *(cell(run, protocol, name) for protocol in PROTOCOLS), end_section=last)
    return shown


def acting(rooms: Path) -> Table:
    """One row for whoever acted: goals reached, and what deciding took."""
    shown = Table(title="Goals reached in four rooms, in percent (95 % interval)", title_justify="left")
    shown.add_column("who acts")
    for words in ("reached", "ms per action"):
        shown.add_column(words, justify="right")
    for name, words in ACTING.items():
        result = json.loads((rooms / "eval" / f"{name}.json").read_text())
        row = result["success"]["all"]
        low, high = row["interval"]
        shown.add_row(words, f"{row['success']:.1f}  ({low:.1f}-{high:.1f})", f"{result['ms_per_action']:.2f}")
    return shown


def main(folder: str) -> None:
    console = Console(highlight=False)
    runs = sorted((path.parent for path in Path(folder).glob("*/export")), reverse=True)
    if not runs:
        sys.exit(f"error: no run with an exported encoder in {folder}")
    console.print(table(runs))
    for run in runs:
        console.print(f"encoder  {run / 'export'}", soft_wrap=True)
        for page in sorted(run.glob("*.html")):
            console.print(f"page     {page}", soft_wrap=True)
    rooms = Path(folder) / "rooms"
    if (rooms / "eval").is_dir():
        console.print(acting(rooms))
        console.print(f"agent    {rooms / 'agent'}", soft_wrap=True)
        console.print(f"page     {rooms / 'page' / 'episode.html'}", soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv[1])

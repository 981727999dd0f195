"""The curve of a run as `metrics.csv`, whatever other loggers the recipe has."""

import csv
import os
from pathlib import Path

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class CSV(Logger):
    """Appends one row per logged step to `RUN/metrics.csv`; empty cells where a metric was not logged.

    A run that is continued goes on in the same file: rows at or after the step where it goes on are replaced.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.path = self.folder / "metrics.csv"
        self.columns: list[str] = []
        self.last_step: int | None = None  # unknown until the first row

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    @property
    def log_dir(self) -> str:
        return str(self.folder)

    @rank_zero_only
    def log_hyperparams(self, params, *args) -> None:
        """The resolved recipe is in `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = {"step": step, **metrics}
        if self.last_step is None:
            self._rewrite([r for r in self._rows() if int(r["step"]) < step], row)
        elif new := [k for k in row if k not in self.columns]:
            self._rewrite(self._rows(), dict.fromkeys(self.columns + new))
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(row)
        self.last_step = step

    def _rows(self) -> list[dict]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def _rewrite(self, rows: list[dict], row: dict) -> None:
        """The file anew, with the columns of its rows and of `row`; replaced in one move."""
        self.columns = list(dict.fromkeys([*(rows[0] if rows else []), *row]))
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(part, self.path)

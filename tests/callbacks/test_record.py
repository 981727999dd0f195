"""metrics.csv: one row a step, new columns, and a continued run goes on in it without holes or doubles."""

import csv

from jepa_pretrain.callbacks.record import CSV


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_columns_that_come_later(tmp_path):
    record = CSV(tmp_path / "run")
    record.log_metrics({"train/loss": 1.0}, 0)
    record.log_metrics({"train/loss": 0.5, "probe/linear_top1": 20.0}, 1)
    record.log_metrics({"train/loss": 0.25}, 2)
    found = rows(tmp_path / "run")
    assert [r["train/loss"] for r in found] == ["1.0", "0.5", "0.25"]
    assert [r["probe/linear_top1"] for r in found] == ["", "20.0", ""]


def test_a_continued_run_replaces_what_was_beyond_its_checkpoint(tmp_path):
    first = CSV(tmp_path)
    for step in range(6):
        first.log_metrics({"train/loss": float(step)}, step)
    second = CSV(tmp_path)  # the checkpoint was taken before step 4
    for step in range(4, 8):
        second.log_metrics({"train/loss": 10.0 + step}, step)
    assert [(int(r["step"]), float(r["train/loss"])) for r in rows(tmp_path)] == [
        (0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0), (4, 14.0), (5, 15.0), (6, 16.0), (7, 17.0),
    ]  # fmt: skip
    assert not list(tmp_path.glob("*.part"))

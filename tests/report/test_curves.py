import math

import pytest

from jepa_pretrain.contracts import UserError
from jepa_pretrain.report import curves


def test_sparse_columns_keep_their_steps(tmp_path):
    (tmp_path / "m.csv").write_text("step,train/loss,probe/knn_top1\n0,2.0,\n10,,31.5\n20,nan,\n")
    columns = curves.read(tmp_path / "m.csv")
    assert columns["probe/knn_top1"] == [(10, 31.5)]
    assert columns["train/loss"][0] == (0, 2.0) and math.isnan(columns["train/loss"][1][1])


@pytest.mark.parametrize("text", ["loss\n1\n", "step,loss\nfoo,1\n", "step,loss\n1,bar\n"])
def test_what_is_no_table_of_metrics(tmp_path, text):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UserError, match="line 2"):
        curves.read(tmp_path / "m.csv")


def test_smoothing_keeps_a_constant_and_follows_a_step():
    assert [v for _, v in curves.smooth([(i, 3.0) for i in range(500)])] == pytest.approx([3.0] * 500)
    jump = curves.smooth([(i, float(i >= 250)) for i in range(500)])
    assert jump[249][1] == 0 and 0 < jump[255][1] < 0.5 and jump[-1][1] > 0.99


def test_draws_what_was_logged_and_nothing_else():
    panel = curves.PANELS[0]
    assert curves.draw(panel, {"train/rank": [(0, 1.0)]}) is None
    drawn = curves.draw(panel, {"train/loss": [(i, 1 / (i + 1)) for i in range(300)] + [(300, math.nan)]})
    assert drawn.startswith("data:image/svg+xml;base64,")
    other = curves.draw(panel, {"train/loss": [(i, 0.5) for i in range(300)]})
    assert drawn != other


def test_warnings_name_collapse_and_divergence():
    healthy = {"train/loss": [(9, 0.1)], "train/rank": [(9, 20.0)], "train/std": [(9, 0.4)]}
    assert curves.warnings(healthy) == [] == curves.warnings({})
    assert "collapsed" in curves.warnings(healthy | {"train/rank": [(0, 20.0), (9, 1.1)]})[0]
    assert "diverged" in curves.warnings(healthy | {"train/loss": [(9, math.nan)]})[0]
    assert "constant" in curves.warnings(healthy | {"train/std": [(9, 1e-6)]})[0]

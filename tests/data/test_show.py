"""The contact sheet shows the pictures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_shards import encoded, write_tar

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.show import CELL, GAP, LINE, show


def test_the_sheet_holds_the_pictures_in_order(tmp_path: Path, capsys):
    colours = ["red", "lime", "blue", "white"]
    samples = [(name, {"png": encoded(Image.new("RGB", (8, 8), name), "PNG"), "cls": b"0"}) for name in colours]
    samples.append(("broken", {"png": b"nothing"}))
    write_tar(tmp_path / "a.tar", samples[:3])
    write_tar(tmp_path / "b.tar", samples[3:])
    (tmp_path / "classes.txt").write_text("thing")
    out = tmp_path / "sheet.png"
    show(str(tmp_path), str(out))
    sheet = np.asarray(Image.open(out))
    assert sheet.shape == (2 * (CELL + LINE + GAP) + GAP, 3 * (CELL + GAP) + GAP, 3)
    middles = [sheet[GAP + CELL // 2 + row * (CELL + LINE + GAP)] for row in (0, 1)]
    found = [middles[n // 3][GAP + CELL // 2 + n % 3 * (CELL + GAP)].tolist() for n in range(5)]
    assert found == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [128, 128, 128]]
    assert "5 of 5 pictures" in capsys.readouterr().out
    caption = sheet[GAP + CELL : GAP + CELL + LINE, GAP : GAP + CELL]
    assert caption.min() < 100, "the class is written below"


def test_it_can_show_a_few_of_many(shards: Callable[..., str], tmp_path: Path, capsys):
    show(shards(10, 0, 30), str(tmp_path / "sheet.png"), count=4)
    assert "4 of 40 pictures" in capsys.readouterr().out
    with pytest.raises(UserError, match="cannot write"):
        show(str(tmp_path / "train-000000.tar"), str(tmp_path / "none" / "sheet.png"))

"""The demo pictures are what their factors say, and are the same everywhere."""

import json
from pathlib import Path

import numpy as np
import pytest

import jepa_pretrain.data.demo as knobs
from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.demo import demo, render
from jepa_pretrain.data.images import decode
from jepa_pretrain.data.index import open_index
from jepa_pretrain.data.shapes import SHAPES
from jepa_pretrain.data.verify import verify


def test_shards_and_factors(tmp_path: Path, capsys):
    demo(str(tmp_path / "a"), train=60, val=20, size=24)
    assert "60 + 20 pictures of 10 shapes" in capsys.readouterr().out
    verify(str(tmp_path / "a"))
    index = open_index(str(tmp_path / "a" / "train-*.tar"))
    assert (index.samples, index.classes) == (60, list(SHAPES))
    shard = index.shards[0].open()
    for number in range(60):
        known = json.loads(shard.read(number, "json"))
        assert int(shard.read(number, "cls")) == known["label"]
        assert decode(shard.read(number, "jpg")).shape == (3, 24, 24)
        assert 0 < known["x"] < 1
        assert knobs.RADIUS[0] <= known["radius"] <= knobs.RADIUS[1]


def test_it_repeats_exactly_and_seeds_differ(tmp_path: Path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        demo(str(tmp_path / name), train=20, val=20, size=16, seed=seed)
    train = [(tmp_path / name / "train-000000.tar").read_bytes() for name in "abc"]
    assert train[0] == train[1] != train[2]
    assert train[0] != (tmp_path / "a" / "val-000000.tar").read_bytes().replace(b"val-", b"train-")
    demo(str(tmp_path / "a"), train=20, val=20, size=16)
    with pytest.raises(UserError, match="another source"):
        demo(str(tmp_path / "a"), train=30, val=20, size=16)


def test_the_shape_is_where_and_as_the_factors_say():
    pictures, factors = render(200, 32, np.random.default_rng(0))
    assert pictures.shape == (200, 32, 32, 3)
    discs = np.flatnonzero(factors["label"] == list(SHAPES).index("disc"))
    rows = (np.arange(32) + 0.5) / 32
    for number in discs:
        distance = np.hypot(rows[None, :] - factors["x"][number], rows[:, None] - factors["y"][number])
        inside = pictures[number][distance < factors["radius"][number] * 0.8].mean(0) / 255
        outside = pictures[number][distance > factors["radius"][number] * 1.1].mean(0) / 255
        assert np.abs(inside - factors["colour"][number]).max() < 0.15
        assert np.abs(outside - factors["background"][number]).max() < 0.15


def test_every_shape_is_another_and_fits_its_circle():
    axis = np.linspace(-1.5, 1.5, 61)
    x, y = np.meshgrid(axis, axis)
    inside = {name: shape(x[None], y[None])[0] < 0 for name, shape in SHAPES.items()}
    for name, area in inside.items():
        assert 0.15 < area.mean() * 9 < 3.2, name
        assert not area[np.hypot(x, y) > 1.15].any(), name
    names = list(SHAPES)
    for first in range(len(names)):
        for second in range(first):
            one, two = inside[names[first]], inside[names[second]]
            assert (one & two).sum() / (one | two).sum() < 0.9, (names[first], names[second])


def test_impossible_demos_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="impossible demo"):
        demo(str(tmp_path), train=0)

"""Ten lines each, as in docs/downstream.md, which is run block by block."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jepa_pretrain.interop.export import write
from jepa_pretrain.models.rotary_vit import RotaryViT
from jepa_pretrain.models.vit import ViT

PAGE = Path(__file__).resolve().parents[2] / "docs" / "downstream.md"
BLOCKS = dict(re.findall(r"^## ([^\n]+)\n.*?```python\n(.*?)```", PAGE.read_text(), re.S | re.M))


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """The files that the page speaks of: two encoders, and pictures of two kinds, light and dark."""
    torch.manual_seed(0)
    write(ViT(image_size=32, patch=8, width=32, depth=2, heads=2), tmp_path / "encoder", {})
    clips = RotaryViT(image_size=16, patch=8, width=32, depth=2, heads=2, frames=4, tubelet=2)
    write(clips, tmp_path / "video_encoder", {})
    rng = np.random.default_rng(0)
    for kind, level in (("dark", 60), ("light", 190)):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for i in range(8):
            pixels = rng.normal(level, 25, (20, 24, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / kind / f"{i}.png")
    monkeypatch.chdir(tmp_path)


def test_the_page_has_its_examples_of_ten_lines():
    assert len(BLOCKS) == 8
    for title, code in BLOCKS.items():
        lines = [line for line in code.splitlines() if line.strip() and not re.match(r"#|import |from ", line)]
        assert len(lines) <= 10, title


@pytest.mark.parametrize("title", BLOCKS)
def test_example(title, workplace):
    names = {}
    exec(compile(BLOCKS[title], f"{PAGE.name}: {title}", "exec"), names)
    for condition in re.findall(r"# (.+?) holds$", BLOCKS[title], re.M):
        assert eval(condition, names), condition

"""`jepa-pretrain embed` and `hubconf.py`."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jepa_pretrain import FrozenEncoder
from jepa_pretrain.cli import main
from jepa_pretrain.contracts import UserError
from jepa_pretrain.evals.embed import embed
from jepa_pretrain.interop.export import write
from jepa_pretrain.models.vit import ViT

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def place(tmp_path):
    torch.manual_seed(0)
    write(ViT(image_size=16, patch=4, width=32, depth=2, heads=2), tmp_path / "encoder", {})
    rng = np.random.default_rng(0)
    for name in ("a/1.png", "a/2.jpg", "b/3.PNG", "4.bmp", "5.png"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    (tmp_path / "pictures" / "broken.png").write_bytes(b"not a picture")
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_row_for_every_picture(place, capsys):
    main(
        ["embed", f"{place}/pictures", f"{place}/out.parquet", f"{place}/encoder", "--batch_size", "2", "--layers", "2"]
    )
    assert "5 pictures, 1 left out" in capsys.readouterr().out
    table = parquet.read_table(place / "out.parquet").to_pydict()
    assert table["file"] == ["4.bmp", "5.png", "a/1.png", "a/2.jpg", "b/3.PNG"]
    encoder = FrozenEncoder.load(place / "encoder")
    for name, row in zip(table["file"], table["feature"], strict=True):
        image = encoder.transform(Image.open(place / "pictures" / name))[None]
        np.testing.assert_allclose(
            row, encoder.features(image, layers=2)[0].numpy(), atol=2e-2 if "jpg" in name else 1e-6
        )


def test_mistakes_are_one_line_and_leave_nothing(place):
    (place / "empty").mkdir()
    (place / "bad").mkdir()
    (place / "bad" / "x.png").write_bytes(b"x")
    for folder, message in (
        ("nowhere", "is no folder"),
        ("empty", "holds no pictures"),
        ("bad", "none of the 1 pictures"),
    ):
        with pytest.raises(UserError, match=message):
            embed(str(place / folder), str(place / "out.parquet"), str(place / "encoder"))
    with pytest.raises(UserError, match="cannot write"):
        embed(str(place / "pictures"), str(place / "absent" / "out.parquet"), str(place / "encoder"))
    assert not list(place.glob("*.parquet*"))


def test_torch_hub(place):
    spec = importlib.util.spec_from_file_location("hubconf", Path(__file__).resolve().parents[2] / "hubconf.py")
    hub = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hub)
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(hub.encoder(str(place / "encoder"))(images), FrozenEncoder.load(place / "encoder")(images))
    found = torch.hub.load(str(Path(spec.origin).parent), "encoder", str(place / "encoder"), source="local")
    assert found.width == 32

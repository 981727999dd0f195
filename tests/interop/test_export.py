import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save
from small_checkpoints import save_checkpoint

from jepa_pretrain import FrozenEncoder
from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop import export, formats
from jepa_pretrain.models.vit import ViT


def tiny_vit(seed=0):
    torch.manual_seed(seed)
    return ViT(image_size=16, patch=4, width=24, depth=2, heads=2)


def test_export_takes_the_encoder_that_the_prefix_names(tmp_path, capsys):
    encoder = tiny_vit()
    formats.export(str(save_checkpoint(tmp_path / "last.ckpt", encoder)), str(tmp_path / "out"))
    frozen = FrozenEncoder.load(tmp_path / "out")
    clip = torch.rand(2, 3, 1, 16, 16)
    assert torch.equal(frozen(clip), encoder(clip).detach())
    assert frozen.provenance["recipe"] == "ijepa_demo" and "torch" in frozen.provenance["versions"]
    assert "Exported ViT" in capsys.readouterr().out


def test_export_replaces_an_export_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    export.write(tiny_vit(0), out, {"step": 1})
    export.write(tiny_vit(1), out, {"step": 2})
    assert FrozenEncoder.load(out).provenance["step"] == 2
    (out / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is no export"):
        export.write(tiny_vit(), out, {})
    assert (out / "thesis.tex").read_text() == "precious"


def test_a_failure_leaves_the_old_export_and_no_litter(tmp_path, monkeypatch):
    out = export.write(tiny_vit(0), tmp_path / "out", {"step": 1})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "save_file", full)
    with pytest.raises(UserError, match="No space left"):
        export.write(tiny_vit(1), out, {"step": 2})
    assert FrozenEncoder.load(out).provenance["step"] == 1
    assert os.listdir(tmp_path) == ["out"]


def test_config_is_plain_json(tmp_path):
    config = json.loads((export.write(tiny_vit(), tmp_path / "out", {}) / "config.json").read_text())
    assert config["architecture"]["class"] == "ViT" and config["grid"] == [1, 4, 4] and config["image_size"] == 16


def test_checkpoint_without_description(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="no description of its encoder"):
        export.from_checkpoint(tmp_path / "other.ckpt")


def test_checkpoint_with_missing_and_left_over_weights(tmp_path):
    encoder = tiny_vit()
    weights = {f"target.module.{name}": tensor for name, tensor in encoder.state_dict().items()}
    weights["target.module.norm.odd"] = weights.pop("target.module.norm.bias")
    path = save_checkpoint(tmp_path / "last.ckpt", encoder, state_dict=weights)
    with pytest.raises(UserError, match=r"missing: norm\.bias; not of this architecture: norm\.odd"):
        export.from_checkpoint(path)


def test_checkpoint_of_another_architecture(tmp_path):
    other = ViT(image_size=16, patch=4, width=48, depth=2, heads=2)
    entry = {"prefix": "target.module.", "config": {"class": "ViT", "args": other.config}}
    path = save_checkpoint(tmp_path / "last.ckpt", tiny_vit(), export=entry)
    with pytest.raises(UserError, match="should have shape"):
        export.from_checkpoint(path)


def test_not_a_checkpoint(tmp_path):
    path = save_checkpoint(tmp_path / "last.ckpt", tiny_vit())
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2], os.urandom(1000)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a checkpoint") as caught:
            export.from_checkpoint(path)
        assert "\n" not in str(caught.value)
    for content, found in (
        (b"", "an empty file"),
        (whole[:99], r"a zip archive, whole or cut off \(99 bytes\)"),
        (b"\x89PNG\r\n", "a PNG picture"),
        (b"<!DOCTYPE html>", "a web page: the download has failed"),
        (pickle.dumps({"encoder": {}}), "a bare pickle, which could run code"),
        (save({"weight": torch.zeros(2)}), "safetensors"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"expected torch's zip, found {found}"):
            export.from_checkpoint(path)
    torch.save({"state_dict": {}}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"found torch's format from before 1\.6: open and save it again"):
        export.from_checkpoint(path)
    with pytest.raises(UserError, match="no checkpoint at"):
        export.from_checkpoint(tmp_path / "absent.ckpt")
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="holds a list"):
        export.from_checkpoint(path)


def test_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'owned'}",)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="could run code"):
        export.from_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "owned").exists()


def test_card_tells_what_is_known_and_where_it_comes_from(tmp_path):
    data = {"train": "shards/train-*.tar", "classes": [str(i) for i in range(1000)]}
    metrics = {"probe/linear_top1": 61.23456}
    out = export.write(tiny_vit(), tmp_path / "out", {"run": "ijepa_demo", "data": data, "metrics": metrics})
    text = (out / "README.md").read_text()
    assert text.startswith("# ijepa_demo") and "- data:\n  - train: shards/train-*.tar" in text
    assert "- probe/linear_top1: 61.23" in text and "classes: 1000, listed in `config.json`" in text
    assert "None were recorded" in (export.write(tiny_vit(), out, {}) / "README.md").read_text()

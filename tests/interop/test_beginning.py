"""`fit --init`: a method's modules begin with somebody's weights, encoder, target and predictor."""

from pathlib import Path

import small_run
import theirs
import torch
import yaml
from pytest import mark, raises

from jepa_pretrain.contracts import UserError
from jepa_pretrain.interop.beginning import begin_from
from jepa_pretrain.interop.export import write
from jepa_pretrain.training import Fit

ROOT = Path(__file__).resolve().parents[2]


def ijepa_file(path, rows=8):
    """A file of Meta's that has the sizes of `small_run`'s I-JEPA: width 32, patch 4, predictor 16."""
    torch.manual_seed(5)
    parts = {n: theirs.transformer_state(32, 128, (4, 4), 2) for n in ("encoder", "target_encoder")}
    for one in parts.values():
        one["pos_embed"] = torch.randn(1, rows**2, 32)
    parts["predictor"] = theirs.predictor_state(32, 16) | {"mask_token": torch.randn(1, 1, 16)}
    parts["predictor"]["predictor_pos_embed"] = torch.randn(1, rows**2, 16)
    torch.save({name: theirs.behind("module.", one) for name, one in parts.items()}, path)
    return parts


def same(module, weights):
    return all(torch.equal(one, weights[name]) for name, one in module.state_dict().items())


def test_metas_encoder_target_and_predictor(tmp_path):
    parts, method = ijepa_file(tmp_path / "in.pth.tar"), small_run.method("ijepa")
    said = begin_from(method, f"{tmp_path}/in.pth.tar?heads=2&predictor_heads=2")
    assert same(method.encoder, parts["encoder"]) and same(method.target.module, parts["target_encoder"])
    assert same(method.predictor, parts["predictor"]) and not same(method.encoder, parts["target_encoder"])
    assert [line.split(":")[0] for line in said] == ["encoder", "target", "predictor"]


def test_at_another_resolution(tmp_path):
    ijepa_file(tmp_path / "in.pth.tar", rows=4)
    method = small_run.method("ijepa")
    begin_from(method, f"{tmp_path}/in.pth.tar?heads=2&predictor_heads=2")
    assert method.encoder.pos_embed.shape == (1, 64, 32)


def test_a_checkpoint_of_ours_and_an_export(tmp_path):
    first, second = small_run.method("ijepa"), small_run.method("ijepa")
    with torch.no_grad():
        for one in first.parameters():
            one.add_(0.1 * torch.randn_like(one))
    entry = {"prefix": "target.module.", "config": {"class": "ViT", "args": first.encoder.config}}
    torch.save({"state_dict": first.state_dict(), "export": entry}, tmp_path / "last.ckpt")
    begin_from(second, str(tmp_path / "last.ckpt"))
    assert same(second, first.state_dict())
    third = small_run.method("ijepa")
    said = begin_from(third, str(write(first.target.module, tmp_path / "out", {})))
    weights = first.target.module.state_dict()
    assert same(third.encoder, weights) and same(third.target.module, weights)
    assert said[2].startswith("predictor: fresh, there is none")


def test_vicregs_encoder_and_expander(tmp_path):
    method = small_run.method("vicreg")
    state = {n: torch.rand_like(one) if one.is_floating_point() else one for n, one in method.state_dict().items()}
    entry = {"prefix": "encoder.", "config": {"class": "TimmEncoder", "args": method.encoder.config}}
    torch.save({"state_dict": state, "export": entry}, tmp_path / "last.ckpt")
    begin_from(method, str(tmp_path / "last.ckpt"))
    assert same(method, state)


@mark.parametrize(
    ("options", "change", "message"),
    [
        ("heads=4&predictor_heads=2", lambda c: None, "encoder has heads 4, the recipe has 2"),
        ("heads=2&image_size=36", lambda c: None, "asks for 36 px, the recipe's encoder takes 32"),
        ("heads=2&predictor_heads=4", lambda c: None, "predictor has heads 4, the recipe has 2"),
        (
            "heads=2&predictor_heads=2",
            lambda c: c["predictor"].pop("module.predictor_norm.bias"),
            "missing: predictor_norm",
        ),
        (
            "heads=2&predictor_heads=2",
            lambda c: c["target_encoder"].pop("module.norm.bias"),
            r"found norm\.bias in encoder, not in target",
        ),
    ],
)
def test_another_architecture_or_half_of_one(tmp_path, options, change, message):
    ijepa_file(tmp_path / "in.pth.tar")
    content = torch.load(tmp_path / "in.pth.tar", weights_only=True)
    change(content)
    torch.save(content, tmp_path / "in.pth.tar")
    with raises(UserError, match=message):
        begin_from(small_run.method("ijepa"), f"{tmp_path}/in.pth.tar?{options}")


def test_fit_begins_with_them(tmp_path, demo_shards, monkeypatch, capsys):
    parts = ijepa_file(tmp_path / "in.pth.tar")
    monkeypatch.chdir(tmp_path)
    recipe = yaml.safe_load((ROOT / "recipes/debug/ijepa.yaml").read_text())
    recipe["trainer"] |= {"max_steps": 1, "limit_val_batches": 0}
    recipe["data"]["init_args"] |= {"train": f"{demo_shards}/train-*.tar", "val": f"{demo_shards}/val-*.tar"}
    recipe["model"]["init_args"]["optimizer"]["init_args"]["lr"]["init_args"] = {"start": 0.0, "peak": 0.0, "end": 0.0}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    Fit(["--config", "r.yaml", "--run", "out", "--init", "in.pth.tar?heads=2&predictor_heads=2"])
    assert "predictor: from in.pth.tar" in capsys.readouterr().out
    saved = torch.load("out/checkpoints/last.ckpt", weights_only=False)["state_dict"]
    for name, one in parts["encoder"].items():
        assert torch.equal(saved[f"encoder.{name}"], one), name  # a learning rate of 0

"""Meta's released files, by state dicts of the published names and shapes; the oracle is `theirs`."""

import pytest
import theirs
import torch

from jepa_pretrain import FrozenEncoder
from jepa_pretrain.contracts import Masks, UserError
from jepa_pretrain.interop.reading import read_parts
from jepa_pretrain.interop.spec import parse

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def normalised(clip):
    shape = (-1, *[1] * (clip.dim() - 2))
    return (clip - MEAN.view(shape)) / STD.view(shape)


def close(found, expected):
    """To 1e-5 of the largest token entry, at a scale of 1 or more."""
    torch.testing.assert_close(found, expected, atol=1e-5 * max(1.0, expected.abs().max().item()), rtol=0)


def ijepa(path, width=32, patch=4, rows=4, depth=2, hidden=128, inner=24, predictor=True, **changes):
    """A file as I-JEPA's training writes it: distributed wrappers, trained and target encoder, optimiser."""
    torch.manual_seed(width)
    encoders = [theirs.transformer_state(width, hidden, (patch, patch), depth) for _ in range(2)]
    for one in encoders:
        one["pos_embed"] = torch.randn(1, rows**2, width) * 0.3
    head = theirs.predictor_state(width, inner)
    head |= {"predictor_pos_embed": torch.randn(1, rows**2, inner) * 0.3, "mask_token": torch.randn(1, 1, inner)}
    content = {
        name: theirs.behind("module.", one) for name, one in zip(("encoder", "target_encoder"), encoders, strict=True)
    }
    content |= {"predictor": theirs.behind("module.", head)} if predictor else {}
    torch.save(content | {"opt": {"state": {}}, "scaler": None, "epoch": 300, "loss": 0.1, "lr": 1e-6} | changes, path)
    return *encoders, head


@pytest.mark.parametrize(("width", "patch", "rows", "heads", "hidden"), [(32, 4, 4, 2, 128), (48, 8, 3, 4, 209)])
def test_ijepa_every_token(tmp_path, width, patch, rows, heads, hidden):
    online, target, head = ijepa(tmp_path / "in.pth.tar", width, patch, rows, hidden=hidden)
    spec = f"{tmp_path}/in.pth.tar?heads={heads}&predictor_heads=3"
    images = torch.rand(2, 3, rows * patch, rows * patch)
    close(FrozenEncoder.load(spec)(images), theirs.vit(target, normalised(images), heads))
    parts = read_parts(parse(spec))
    seen, hidden = torch.tensor([[0, 5, 3], [1, 2, 8]]), torch.tensor([[4, 6], [7, 0]])
    context = torch.randn(2, 3, width)
    with torch.no_grad():
        close(parts.online.make(spec)(images.unsqueeze(2)), theirs.vit(online, normalised(images), heads))
        found = parts.predictor.make(spec)(context, Masks(seen, hidden[:, None]))
    close(found[:, 0], theirs.predictor(head, context, seen, hidden, 3))


def test_published_heads_are_known_and_others_asked_for(tmp_path):
    ijepa(tmp_path / "in.pth.tar")
    with pytest.raises(UserError, match=r"32 is no published width: add \?heads=NUMBER"):
        FrozenEncoder.load(tmp_path / "in.pth.tar")
    ijepa(tmp_path / "tiny.pth.tar", width=192, depth=1, hidden=8)
    frozen = FrozenEncoder.load(tmp_path / "tiny.pth.tar")
    assert frozen.config["args"]["heads"] == 3 and frozen.provenance["origin"] == "I-JEPA (Meta)"


def test_another_resolution_interpolates_positions_without_a_class_token(tmp_path):
    _, target, _ = ijepa(tmp_path / "in.pth.tar")
    frozen = FrozenEncoder.load(f"{tmp_path}/in.pth.tar?heads=2&predictor_heads=3", image_size=24)
    table = target["pos_embed"].unflatten(1, (4, 4)).movedim(-1, 1)
    wanted = torch.nn.functional.interpolate(table, size=(6, 6), mode="bicubic").flatten(2).mT
    images = torch.rand(2, 3, 24, 24)
    close(frozen(images), theirs.vit(target, normalised(images), 2, positions=wanted))
    assert frozen.grid == (1, 6, 6) and "interpolated from (1, 4, 4) to (1, 6, 6)" in frozen.provenance["notes"][0]


def video(path, rotary, count, positions=True, wrap="module.backbone.", width=48, inner=36, rows=3, steps=8):
    torch.manual_seed(count)
    encoder = theirs.transformer_state(width, 4 * width, (2, 4, 4), 2)
    head = theirs.predictor_state(width, inner)
    if positions:
        encoder["pos_embed"] = torch.randn(1, steps * rows**2, width) * 0.3
        head["predictor_pos_embed"] = torch.randn(1, steps * rows**2, inner) * 0.3
    head |= {f"mask_tokens.{i}": torch.randn(1, 1, inner) for i in range(count)}
    other = {name: one + 1 for name, one in encoder.items()}
    parts = {"encoder": other, "target_encoder": encoder, "predictor": head}
    torch.save({name: theirs.behind(wrap, one) for name, one in parts.items()} | {"epoch": 1}, path)
    return encoder, head


@pytest.mark.parametrize(("rotary", "count", "positions"), [(False, 2, True), (True, 10, True), (True, 2, False)])
def test_vjepa_every_token(tmp_path, rotary, count, positions):
    encoder, head = video(tmp_path / "in.pt", rotary, count, positions)
    size = "&image_size=12&frames=16" if rotary else ""
    spec = f"{tmp_path}/in.pt?heads=2&predictor_heads=2{size}"
    frozen, clip = FrozenEncoder.load(spec), torch.rand(2, 3, 16, 12, 12)
    assert type(frozen.encoder).__name__ == ("TiledRotaryViT" if rotary else "ViT")
    close(frozen(clip), theirs.vit(encoder, normalised(clip), 2, rotary=rotary))
    seen, hidden = torch.tensor([[0, 50, 3], [10, 20, 70]]), torch.tensor([[4, 66], [7, 0]])
    context = torch.randn(2, 3, 48)
    with torch.no_grad():
        found = read_parts(parse(spec)).predictor.make(spec)(context, Masks(seen, hidden[:, None]))
    expected = theirs.predictor(head, context, seen, hidden, 2, side=3 if rotary else None, token="mask_tokens.1")
    close(found[:, 0], expected)


def test_vjepa_at_another_size_interpolates_in_space_and_time(tmp_path):
    encoder, _ = video(tmp_path / "in.pt", False, 2)
    frozen = FrozenEncoder.load(f"{tmp_path}/in.pt?heads=2&predictor_heads=2&frames=8", image_size=16)
    table = encoder["pos_embed"].reshape(1, 8, 3, 3, 48).movedim(-1, 1)
    wanted = torch.nn.functional.interpolate(table, size=(4, 4, 4), mode="trilinear").flatten(2).mT
    clip = torch.rand(1, 3, 8, 16, 16)
    close(frozen(clip), theirs.vit(encoder, normalised(clip), 2, positions=wanted))


def test_vjepa_or_vjepa2_is_asked_where_the_file_leaves_it_open(tmp_path):
    encoder, _ = video(tmp_path / "in.pt", False, 2)
    torch.save({"encoder": encoder}, tmp_path / "alone.pt")
    with pytest.raises(UserError, match=r"could be of V-JEPA or V-JEPA 2: write vjepa:"):
        FrozenEncoder.load(f"{tmp_path}/alone.pt?heads=2")
    clip = torch.rand(1, 3, 16, 12, 12)
    for kind, rotary in (("vjepa", False), ("vjepa2", True)):
        frozen = FrozenEncoder.load(f"{kind}:{tmp_path}/alone.pt?heads=2&image_size=12&frames=16")
        close(frozen(clip), theirs.vit(encoder, normalised(clip), 2, rotary=rotary))


@pytest.mark.parametrize(("stem", "blocks"), [(64, (1, 1, 1, 1)), (8, (2, 1, 3, 1))])
def test_vicreg_resnet_and_its_expander(tmp_path, stem, blocks):
    torch.manual_seed(0)
    state = theirs.resnet_state(stem, blocks)
    torch.save(state, tmp_path / "resnet50.pth")
    images, width = torch.rand(2, 3, 32, 32), 32 * stem
    expected = theirs.resnet(state, normalised(images), blocks).flatten(2).mT
    close(FrozenEncoder.load(tmp_path / "resnet50.pth", image_size=32)(images), expected)
    expander = {"0.weight": torch.randn(12, width), "0.bias": torch.randn(12), "3.weight": torch.randn(10, 12)}
    expander |= theirs.batch_norm_state("1", 12)
    model = theirs.behind("module.backbone.", state) | theirs.behind("module.projector.", expander)
    torch.save({"epoch": 1, "model": model, "optimizer": {}}, tmp_path / "model.pth")
    parts = read_parts(parse(f"{tmp_path}/model.pth", 32))
    x = torch.randn(3, width)
    first = torch.nn.functional.linear(x, expander["0.weight"], expander["0.bias"])
    with torch.no_grad():
        found = parts.projector.make("model").eval()(x)
    close(found, theirs.batch_norm(expander, "1", first).relu() @ expander["3.weight"].T)
    close(FrozenEncoder.load(tmp_path / "model.pth", image_size=32)(images), expected)


def test_vicregl_convnext(tmp_path):
    torch.manual_seed(0)
    depths, dims = (1, 1, 2, 1), (8, 16, 24, 32)
    state = theirs.convnext_state(depths, dims)
    torch.save(state, tmp_path / "convnext.pth")
    images = torch.rand(2, 3, 64, 64)
    close(
        FrozenEncoder.load(tmp_path / "convnext.pth", image_size=64)(images),
        theirs.convnext(state, normalised(images), depths),
    )


def both(content):
    return content["encoder"], content["target_encoder"]


def damaged(change):
    def write(path):
        ijepa(path)
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)

    return write


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["target_encoder"].pop("module.blocks.1.norm2.bias"),
            r"found blocks\.1\.norm2\.bias in enc",
        ),
        (lambda c: [c.pop("encoder"), c["target_encoder"].pop("module.norm.bias")], r"missing: norm\.bias; not of"),
        (lambda c: c["encoder"].pop("module.norm.bias"), r"found norm\.bias in target_encoder, not in encoder"),
        (
            lambda c: [one.update({"module.cls_token": torch.zeros(1)}) for one in both(c)],
            "not of this architecture: cls_token",
        ),
        (lambda c: c["target_encoder"].pop("module.pos_embed"), "weights missing: pos_embed"),
        (
            lambda c: c["target_encoder"].update({"module.pos_embed": torch.zeros(1, 15, 32)}),
            "15 positions, which is no square",
        ),
        (lambda c: c["target_encoder"].pop("module.patch_embed.proj.weight"), r"expected patch_embed\.proj\.weight"),
        (lambda c: c["target_encoder"].update({"module.pos_embed": torch.zeros(3)}), "not what its names say"),
        (
            lambda c: [one.update({f"module.blocks.{10**9}.x": torch.zeros(1)}) for one in both(c)],
            "not of this architecture",
        ),
        (lambda c: [one.update({"module.blocks.9999.x": torch.zeros(1)}) for one in both(c)], "depth cannot be 10000"),
        (lambda c: c.update(target_encoder=3), "should hold weights by name, found int"),
        (lambda c: (c.pop("encoder"), c.pop("target_encoder")), "is none of .*it holds predictor"),
    ],
)
def test_bad_files_are_one_line_that_says_what(tmp_path, change, message):
    damaged(change)(tmp_path / "in.pth.tar")
    with pytest.raises(UserError, match=message) as caught:
        FrozenEncoder.load(f"{tmp_path}/in.pth.tar?heads=2&predictor_heads=3")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["predictor"].pop("module.predictor_proj.weight"), r"missing: predictor_proj\.weight"),
        (lambda c: c["predictor"].pop("module.predictor_embed.weight"), "half a predictor is none"),
        (lambda c: c["predictor"].pop("module.mask_token"), "missing: mask_token"),
    ],
)
def test_half_a_predictor(tmp_path, change, message):
    damaged(change)(tmp_path / "in.pth.tar")
    spec = f"{tmp_path}/in.pth.tar?heads=2&predictor_heads=3"
    with pytest.raises(UserError, match=message):
        read_parts(parse(spec)).predictor.make(spec)


def test_options_are_checked(tmp_path):
    with pytest.raises(UserError, match="image_size should be 1 or more, found 0"):
        FrozenEncoder.load(f"{tmp_path}/x.pt?image_size=0")
    ijepa(tmp_path / "in.pth.tar")
    with pytest.raises(UserError, match=r"in\.pth\.tar\?heads=5.*: the width 32 does not divide into 5 heads"):
        FrozenEncoder.load(f"{tmp_path}/in.pth.tar?heads=5&predictor_heads=2")
    with pytest.raises(UserError, match="'head=2' should read key=number"):
        FrozenEncoder.load(f"{tmp_path}/x.pt?head=2")

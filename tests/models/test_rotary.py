"""Rotary positions against the formula, and what follows from it."""

import math

import pytest
import torch

from jepa_pretrain.contracts import Grid, Masks, UserError
from jepa_pretrain.models.predictor import MaskedPredictor, RotaryPredictor, TiledRotaryPredictor
from jepa_pretrain.models.rotary import RotaryAttention, Rotation, TiledRotation, turn
from jepa_pretrain.models.rotary_vit import MixedViT, RotaryViT, TiledRotaryViT
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT, use_plain_attention
from jepa_pretrain.ops import gather_tokens

GRID = Grid(3, 4, 5)


def turned(rotation, x, index):
    """`x` (d,) at the place `index`."""
    return turn(x.view(1, 1, 1, -1), *rotation(torch.tensor([index]))).flatten()


@pytest.mark.parametrize("kind", [Rotation, TiledRotation])
@pytest.mark.parametrize("width", [16, 32])
def test_turns_as_v_jepa_2_does(kind, width):
    """Pairs of neighbours; time, row, column; frequency of a channel: its pair's, or (V-JEPA 2) channel mod pairs."""
    x, token, pairs = torch.randn(width), 37, width // 6
    place, expected = (token // 20, token // 5 % 4, token % 5), x.clone()
    for axis, coordinate in enumerate(place):
        for channel in range(2 * pairs):
            here = axis * 2 * pairs + channel
            number = channel // 2 if kind is Rotation else channel % pairs
            angle = coordinate / 10000 ** (number / pairs)
            partner = -x[here + 1] if channel % 2 == 0 else x[here - 1]
            expected[here] = x[here] * math.cos(angle) + partner * math.sin(angle)
    torch.testing.assert_close(turned(kind(width, GRID), x, token), expected, rtol=1e-5, atol=1e-6)


def test_scores_depend_on_the_distance_alone():
    """All places moved by (1, 1, 2) change no score; V-JEPA 2's own frequencies do not have this property."""
    q, k = torch.randn(2, 32)
    for kind, relative in ((Rotation, True), (TiledRotation, False)):
        rotation = kind(32, GRID)
        first, moved = (turned(rotation, q, 0 + by) @ turned(rotation, k, 27 + by) for by in (0, 20 + 5 + 2))
        assert torch.isclose(first, moved, rtol=1e-4, atol=1e-4).item() is relative
    rotation = Rotation(32, GRID)
    assert not torch.isclose(
        turned(rotation, q, 0) @ turned(rotation, k, 27), q @ k, rtol=1e-2
    )  # and it is no identity


@pytest.mark.parametrize("kind", [ViT, RotaryViT, TiledRotaryViT, MixedViT])
def test_kept_tokens_take_their_places_along(kind):
    """All tokens in another order give the same tokens in that order."""
    torch.manual_seed(0)
    encoder = kind(32, 8, 24, 2, 2, frames=4, tubelet=2).eval()
    torch.nn.init.normal_(encoder.blocks[0].attn.qkv.weight, std=0.5)  # so that places weigh
    clip = torch.rand(2, 3, 4, 32, 32)
    order = torch.stack([torch.randperm(32) for _ in range(2)])
    torch.testing.assert_close(encoder(clip, order), gather_tokens(encoder(clip), order), rtol=1e-4, atol=1e-5)
    moved = encoder(clip.flip(4), order)
    assert (moved - encoder(clip, order)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [RotaryPredictor, TiledRotaryPredictor])
@pytest.mark.parametrize("joint", [False, True])
def test_the_predictor_knows_the_places(kind, joint):
    """Equal mask tokens differ by their places alone, and the order in which they are asked for does not matter."""
    torch.manual_seed(0)
    predictor = kind(16, Grid(2, 4, 4), 12, 2, 2, joint=joint).eval()
    torch.nn.init.normal_(predictor.predictor_blocks[0].attn.qkv.weight, std=0.5)
    context, index = torch.randn(2, 5, 16), torch.stack([torch.randperm(32) for _ in range(2)])
    masks = Masks(index[:, :5], index[:, 5:25].view(2, 2, 10))
    out = predictor(context, masks)
    assert out.shape == (2, 2, 10, 16)
    assert (out[0, 0, 0] - out[0, 0, 1]).abs().max() > 1e-3
    swapped = predictor(context, masks._replace(targets=masks.targets.flip(2)))
    torch.testing.assert_close(swapped.flip(2), out, rtol=1e-4, atol=1e-5)
    assert set(predictor.state_dict()) == set(MaskedPredictor(16, GRID, 12, 2, 2).state_dict()) - {
        "predictor_pos_embed"
    }


def test_plain_attention_is_the_same():
    torch.manual_seed(0)
    attention = RotaryAttention(32, 2, qkv_bias=True).double()
    places = [part.double() for part in Rotation(16, GRID)(torch.arange(7))]
    x = torch.randn(3, 7, 32).double()
    fused = attention(x, *places)
    mask = torch.ones(7, 7).tril().bool()
    causal = attention(x, *places, mask)
    assert (causal[:, 0] - fused[:, 0]).abs().max() > 0.01
    use_plain_attention(attention)
    torch.testing.assert_close(attention(x, *places), fused)
    torch.testing.assert_close(attention(x, *places, mask), causal)


@pytest.mark.parametrize("make", [lambda: ViT(16, 4, 24, 2, 2), lambda: TimmEncoder("test_vit", 32)])
def test_plain_attention_throughout_an_encoder(make, monkeypatch):
    encoder = make().double().eval()
    clip = torch.rand(2, 3, 1, *[encoder.image_size] * 2).double()
    fused = encoder(clip)
    use_plain_attention(encoder)
    monkeypatch.delattr(torch.nn.functional, "scaled_dot_product_attention")  # it is really spelled out
    torch.testing.assert_close(encoder(clip), fused)


def test_pictures_and_clips_in_one_encoder():
    torch.manual_seed(0)
    encoder = MixedViT(32, 8, 24, 1, 2, frames=4, tubelet=2).train()
    clip, picture = torch.rand(2, 3, 4, 32, 32), torch.rand(2, 3, 1, 32, 32)
    assert encoder(clip).shape == (2, 32, 24) and encoder(picture).shape == (2, 16, 24)
    assert encoder(picture, torch.tensor([[1, 5], [2, 15]])).shape == (2, 2, 24)
    for batch, used, idle in ((picture, "img", "video"), (clip, "video", "img")):
        encoder.zero_grad()
        encoder(batch).square().sum().backward()
        assert encoder.get_parameter(f"{used}_mod_embed").grad.abs().sum() > 0
        assert encoder.get_parameter(f"{idle}_mod_embed").grad.abs().sum() == 0
        assert all(p.grad is not None for p in encoder.parameters())
    before = encoder(picture)
    with torch.no_grad():
        encoder.patch_embed.proj.weight.add_(1.0)
        encoder.video_mod_embed.add_(1.0)
    assert torch.equal(encoder(picture), before)  # the clips' weights do not touch pictures


def test_shorter_clips_and_wrong_ones():
    encoder = RotaryViT(32, 8, 24, 1, 2, frames=4, tubelet=2).eval()
    assert encoder(torch.rand(1, 3, 2, 32, 32)).shape == (1, 16, 24)
    with pytest.raises(UserError, match="4 to a clip"):
        encoder(torch.rand(1, 3, 6, 32, 32))
    with pytest.raises(UserError, match="takes 32x32"):
        encoder(torch.rand(1, 3, 4, 16, 16))
    with pytest.raises(UserError, match="6 or more"):
        RotaryViT(32, 8, 8, 1, 2)
    with pytest.raises(UserError, match="pictures from clips"):
        MixedViT(32, 8, 24, 1, 2)

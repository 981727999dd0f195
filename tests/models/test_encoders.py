"""One contract over every encoder."""

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from jepa_pretrain.contracts import Encoder, UserError
from jepa_pretrain.models.frames import SmallConv
from jepa_pretrain.models.rotary_vit import RotaryViT, TiledRotaryViT
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT

ENCODERS = {
    "vit": lambda: ViT(32, 8, 32, 2, 2),
    "rotary vit": lambda: RotaryViT(32, 8, 32, 2, 2),
    "tiled rotary vit": lambda: TiledRotaryViT(32, 8, 32, 2, 2),
    "resnet": lambda: TimmEncoder("test_resnet", 32),
    "resnet18 with a CIFAR stem": lambda: TimmEncoder("resnet18", 32, cifar_stem=True),
    "convnext": lambda: TimmEncoder("test_convnext", 64),
    "small convolutions": lambda: SmallConv(32, 16),
    "timm vit": lambda: TimmEncoder("test_vit", 64),
}


@pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)
def test_contract(make):
    torch.manual_seed(0)
    encoder = make().eval()
    assert isinstance(encoder, Encoder)
    size = encoder.image_size
    clip = torch.randint(0, 256, (2, 3, 1, size, size), dtype=torch.uint8)
    tokens = encoder(clip)
    assert tokens.shape == (2, encoder.grid.tokens, encoder.width)
    torch.testing.assert_close(encoder(clip.float() / 255), tokens, rtol=1e-4, atol=1e-5)
    layers = encoder.forward_layers(clip, 2)
    assert len(layers) == 2
    torch.testing.assert_close(layers[-1], tokens, rtol=1e-4, atol=1e-5)
    assert type(encoder)(**encoder.config).grid == encoder.grid  # the config rebuilds it


def test_keep_computes_the_kept_tokens_alone():
    vit = ViT(32, 8, 32, 1, 2).eval()
    clip = torch.rand(2, 3, 1, 32, 32)
    keep = torch.tensor([[0, 5, 9], [3, 4, 15]])
    seen = vit(clip, keep)
    changed = clip.clone()
    changed[0, :, :, 24:, 24:] = 0.0  # token 15, which the first sample does not see
    assert seen.shape == (2, 3, 32)
    assert torch.equal(vit(changed, keep)[0], seen[0])
    everything = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(vit(clip, everything), vit(clip))


def test_vit_is_timms_vit():
    """Same names, same numbers, with timm's own model as the reference."""
    ours = ViT(32, 8, 32, 2, 2).eval()
    theirs = VisionTransformer(
        32, 8, embed_dim=32, depth=2, num_heads=2, class_token=False, global_pool="avg", num_classes=0, fc_norm=False
    ).eval()
    missing = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not missing.unexpected_keys and not missing.missing_keys
    clip = torch.rand(3, 3, 1, 32, 32)
    torch.testing.assert_close(
        ours(clip), theirs.forward_features(ours.normalise(clip).squeeze(2)), rtol=1e-4, atol=1e-5
    )


def test_init_rescales_with_depth():
    """ijepa's second initialisation undoes this."""
    vit = ViT(32, 8, 256, 8, 4)
    first, last = vit.blocks[0].mlp.fc2.weight.std(), vit.blocks[7].mlp.fc2.weight.std()
    assert abs(first / last - 8**0.5) < 0.15
    assert abs(vit.blocks[7].attn.qkv.weight.std() - 0.02) < 0.001


def test_video_is_a_bigger_grid():
    vit = ViT(32, 8, 32, 1, 2, frames=4, tubelet=2)
    assert vit.grid == (2, 4, 4)
    assert vit(torch.rand(2, 3, 4, 32, 32)).shape == (2, 32, 32)
    by_convolution = vit.patch_embed.proj(torch.ones(1, 3, 4, 32, 32)).flatten(2).mT
    torch.testing.assert_close(by_convolution, vit.patch_embed(torch.ones(1, 3, 4, 32, 32)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "mistake, words",
    [
        (lambda: ViT(30, 8), "30 px does not divide into patches of 8 px"),
        (lambda: ViT(32, 8, 30, 1, 4), "does not divide into 4 heads"),
        (lambda: ViT(32, 8, 32, 1, 2)(torch.rand(1, 3, 1, 64, 64)), "takes 32x32 pictures"),
        (lambda: ViT(32, 8, 32, 1, 2)(torch.rand(1, 3, 1, 33, 33)), "does not divide"),
        (lambda: ViT(32, 8, 32, 1, 2, frames=4)(torch.rand(1, 3, 2, 32, 32)), "32x32 pictures, 4 to a clip; got .2, 3"),
        (lambda: ViT(32, 8, 32, 2, 2)(torch.rand(1, 3, 1, 32, 32), None, (1, 3)), "blocks 1 to 2"),
        (lambda: TimmEncoder("resnet81"), "timm has no model 'resnet81'"),
        (lambda: TimmEncoder("test_vit", 64, cifar_stem=True), "plain ResNets"),
        (lambda: TimmEncoder("test_resnet", 32)(torch.rand(1, 3, 1, 32, 32), torch.zeros(1, 2).long()), "drop tokens"),
        (lambda: TimmEncoder("test_resnet", 32)(torch.rand(1, 3, 2, 32, 32)), "clip of 2 frames"),
    ],
)
def test_mistakes_are_explained(mistake, words):
    with pytest.raises(UserError, match=words):
        mistake()


def test_cifar_stem_keeps_the_resolution():
    encoder = TimmEncoder("resnet18", 32, cifar_stem=True)
    assert encoder.grid == (1, 4, 4) and encoder.model.conv1.stride == (1, 1)
    assert TimmEncoder("resnet18", 32).grid == (1, 1, 1)
    assert timm.is_model("resnet18")


def test_mean_and_deviation_may_be_whole_numbers():
    """As in a recipe's `mean: [0, 0, 0]`."""
    assert ViT(32, 8, 32, 1, 2, mean=(0, 0, 0), std=(1, 1, 1))(torch.rand(1, 3, 1, 32, 32)).dtype == torch.float32

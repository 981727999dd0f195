"""What a frozen encoder offers beside its tokens."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from jepa_pretrain import FrozenEncoder
from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.views import CentreCrop
from jepa_pretrain.models.rotary_vit import TiledRotaryViT
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT


def frozen():
    torch.manual_seed(0)
    return FrozenEncoder(ViT(image_size=16, patch=4, width=32, depth=2, heads=2))


def video(depth=2):
    torch.manual_seed(0)
    return FrozenEncoder(TiledRotaryViT(image_size=16, patch=8, width=32, depth=depth, heads=2, frames=4, tubelet=2))


@pytest.mark.parametrize("size", [(40, 30), (16, 16), (17, 90), (300, 200)])
def test_transform_is_the_crop_of_the_evaluations(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    expected, transform = CentreCrop(16)(image), frozen().transform
    for picture in (image, pixels, Image.fromarray(pixels)):
        assert torch.equal(transform(picture), expected)
    assert torch.equal(transform(image[:, None].expand(-1, 3, -1, -1))[:, 1], expected)  # a clip of three such frames
    with pytest.raises(UserError, match="expected a PIL image"):
        transform(torch.zeros(2, 16, 16))


def test_features_of_pictures():
    encoder, images = frozen(), torch.rand(2, 3, 16, 16)
    first, last = encoder.forward_layers(images, 2)
    assert torch.equal(encoder.features(images), last.mean(1))
    assert torch.equal(encoder.features(images, layers=2), torch.cat([first.mean(1), last.mean(1)], -1))
    assert torch.equal(encoder.features(images, layers=2, pool="none"), torch.cat([first, last], -1))
    maps = encoder.features(images, pool="map")
    assert maps.shape == (2, 32, 4, 4) and torch.equal(maps[0, :, 2, 1], last[0, 9])
    with pytest.raises(UserError, match="pool is mean, map or none, not 'max'"):
        encoder.features(images, pool="max")


def test_files_of_pictures(tmp_path):
    encoder, pixels = frozen(), np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    files = [tmp_path / f"{i}.png" for i in range(5)]
    for file, one in zip(files, pixels, strict=True):
        Image.fromarray(one).save(file)
    found = encoder.embed(files, layers=2, batch_size=2)
    expected = encoder.features(torch.stack([encoder.transform(one) for one in pixels]), layers=2)
    torch.testing.assert_close(found, expected)
    still = torch.stack([encoder.transform(one) for one in pixels]).unsqueeze(2).expand(-1, -1, 4, -1, -1)
    torch.testing.assert_close(video().embed(files), video().features(still))
    files[3].write_text("no picture")
    with pytest.raises(UserError, match=r"3\.png is no picture that can be read"):
        encoder.embed(files)
    with pytest.raises(UserError, match="the list of files is empty"):
        encoder.embed([])


def test_a_classifier_trains_a_copy():
    encoder, images = frozen(), torch.rand(2, 3, 16, 16)
    before, model = encoder(images), encoder.classifier(3)
    torch.testing.assert_close(model(images), model.head(before.mean(1)))
    model(images).square().sum().backward()
    assert all(one.grad is not None for one in model.encoder.parameters())
    with torch.no_grad():
        for one in model.parameters():
            one.add_(1.0)
    assert torch.equal(encoder(images), before) and not encoder.encoder.blocks[0].norm1.weight.requires_grad


def test_features_of_clips_and_of_a_pyramid():
    clip = torch.rand(2, 3, 4, 16, 16)
    assert video().features(clip, pool="map").shape == (2, 32, 2, 2, 2)
    pyramid, images = FrozenEncoder(TimmEncoder("test_resnet", image_size=32)), torch.rand(1, 3, 32, 32)
    widths = sum(one.shape[-1] for one in pyramid.forward_layers(images, 2))
    assert pyramid.features(images, layers=2).shape == (1, widths)
    with pytest.raises(UserError, match="different grids"):
        pyramid.features(images, layers=2, pool="map")


@pytest.mark.parametrize("make", [frozen, video])
def test_copies_and_pickles_are_the_same(make):
    encoder = make()
    images = torch.rand(2, 3, 16, 16) if make is frozen else torch.rand(2, 3, 4, 16, 16)
    through = io.BytesIO()
    torch.save(encoder, through)
    through.seek(0)
    copies = (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder), torch.load(through, weights_only=False))
    assert all(torch.equal(one(images), encoder(images)) and one.config == encoder.config for one in copies)


def test_clips_compile_as_one_graph():  # pictures as one program: docs/downstream.md
    encoder, clip = video(depth=1), torch.rand(2, 3, 4, 16, 16)
    compiled = torch.compile(encoder, fullgraph=True, backend="eager")  # another backend would say no more of it
    torch.testing.assert_close(compiled(clip), encoder(clip), atol=1e-5, rtol=0)


def test_autocast_on_a_cpu():
    encoder, images = frozen(), torch.rand(2, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = encoder(images)
    torch.testing.assert_close(tokens.float(), encoder(images), atol=0.05, rtol=0.05)


@pytest.mark.skipif(not (torch.cuda.is_available() or torch.backends.mps.is_available()), reason="no accelerator here")
def test_on_an_accelerator():
    device = "cuda" if torch.cuda.is_available() else "mps"
    encoder, images = frozen(), torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    found = copy.deepcopy(encoder).to(device)(images.to(device)).cpu()
    torch.testing.assert_close(found, encoder(images), atol=1e-3, rtol=0)
    with torch.autocast(device, dtype=torch.bfloat16 if device == "cuda" else torch.float16):
        half = copy.deepcopy(encoder).to(device)(images.to(device)).float().cpu()
    torch.testing.assert_close(half, encoder(images), atol=0.05, rtol=0.05)

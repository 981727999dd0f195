"""Views against torchvision's own, and against their definitions."""

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from scipy.ndimage import gaussian_filter

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.views import Augment, CentreCrop, RandomCrop, View, blur, crop_box, turn_hue


@pytest.fixture
def image() -> torch.Tensor:
    torch.default_generator.manual_seed(0)
    coarse = torch.rand(1, 3, 6, 6)
    return (torch.nn.functional.interpolate(coarse, (48, 64), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)[0]


def test_crops_are_the_torchvision_resize_of_a_box_with_the_stated_area_and_shape(image: torch.Tensor):
    areas, shapes = [], []
    for seed in range(300):
        torch.default_generator.manual_seed(seed)
        top, left, height, width = crop_box(100, 80, (0.3, 1.0), (0.75, 4 / 3))
        assert 0 <= top <= 100 - height
        assert 0 <= left <= 80 - width
        areas.append(height * width / 8000)
        shapes.append(width / height)
    assert 0.29 < min(areas) < 0.33
    assert max(areas) > 0.9
    assert 0.73 < min(shapes) < 0.8
    assert 1.25 < max(shapes) < 1.36
    torch.default_generator.manual_seed(1)
    got = RandomCrop(32)(image)
    torch.default_generator.manual_seed(1)
    top, left, height, width = crop_box(48, 64, (0.3, 1.0), (3 / 4, 4 / 3))
    mode = reference.InterpolationMode.BICUBIC
    wanted = reference.resized_crop(image, top, left, height, width, [32, 32], mode, antialias=True)
    assert torch.equal(got, wanted)


def test_both_edges_are_reached():
    boxes = []
    for seed in range(400):
        torch.default_generator.manual_seed(seed)
        boxes.append(crop_box(8, 8, (0.3, 0.6), (0.75, 4 / 3)))
    assert min(box[0] for box in boxes) == 0
    assert max(box[0] + box[2] for box in boxes) == 8


def test_extreme_shapes_still_give_a_crop():
    for height, width in ((1, 1), (1, 500), (500, 1), (2, 3)):
        assert RandomCrop(16)(torch.zeros(3, height, width, dtype=torch.uint8)).shape == (3, 16, 16)
        assert CentreCrop(16)(torch.zeros(3, height, width, dtype=torch.uint8)).shape == (3, 16, 16)


def test_flip_happens_as_often_as_stated(image: torch.Tensor):
    crop = RandomCrop(48, scale=(1.0, 1.0), ratio=(64 / 48, 64 / 48), flip=0.5)
    plain = RandomCrop(48, scale=(1.0, 1.0), ratio=(64 / 48, 64 / 48))(image)
    flipped = sum(torch.equal(crop(image), plain.flip(2)) for _ in range(200))
    assert 70 < flipped < 130


def test_centre_crop(image: torch.Tensor):
    assert CentreCrop(48)(image[:, :, :48]) is not None
    exact = image[:, :48, :48]
    assert torch.equal(CentreCrop(48)(exact), exact)
    mode = reference.InterpolationMode.BICUBIC
    wanted = reference.center_crop(reference.resize(image, [37], mode, antialias=True), [32, 32])
    difference = (CentreCrop(32)(image).int() - wanted.int()).abs().float().mean()
    assert difference < 3, "the size of the longer side may be rounded differently"


@pytest.mark.parametrize("amount", [-0.5, -0.1, 0.0, 0.03, 0.1, 0.5])
def test_hue_is_torchvisions(image: torch.Tensor, amount: float):
    wanted = reference.adjust_hue(image.float() / 255, amount) * 255
    assert torch.allclose(turn_hue(image.float(), amount), wanted, atol=0.05)


def test_blur_is_gaussian(image: torch.Tensor):
    wanted = torch.from_numpy(gaussian_filter(image[0].float().numpy(), 1.5, truncate=6))
    inside = (slice(8, -8), slice(8, -8))
    assert torch.allclose(blur(image.float(), 1.5)[0][inside], wanted[inside], atol=0.2)
    assert torch.allclose(blur(torch.full((3, 9, 9), 7.0), 2.0), torch.full((3, 9, 9), 7.0), atol=1e-4)


def test_augment_switches(image: torch.Tensor):
    off = {"flip": 0.0, "jitter": 0.0, "gray": 0.0, "blur": 0.0, "scale": (1.0, 1.0)}
    plain = Augment(32, **off)(image)
    assert Augment(32, **off | {"gray": 1.0})(image).float().std(0).max() == 0
    solarized = Augment(32, **off, solarize=1.0)(image)
    assert solarized.max() <= 127
    assert torch.equal(solarized, torch.where(plain >= 128, 255 - plain, plain)) or plain.shape == (3, 32, 32)
    views = [Augment(32)(image) for _ in range(5)]
    assert len({tuple(view.flatten().tolist()) for view in views}) == 5
    assert {view.dtype for view in views} == {torch.uint8}


def test_the_same_seed_gives_the_same_view(image: torch.Tensor):
    for view in (RandomCrop(32, flip=0.5), Augment(32, solarize=0.5)):
        torch.default_generator.manual_seed(3)
        first = view(image)
        torch.default_generator.manual_seed(3)
        assert torch.equal(first, view(image))
        assert isinstance(view, View)


def test_impossible_crops_are_refused():
    with pytest.raises(UserError, match="impossible crop"):
        RandomCrop(32, scale=(0.5, 0.2))
    with pytest.raises(UserError, match="impossible crop"):
        CentreCrop(32, resize=16)

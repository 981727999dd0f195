"""Views: what a method sees of a clip. Each takes (T, C, H, W) uint8 and gives (T, C, size, size) uint8.

A picture is a clip of one frame. A view draws once for a clip and treats all frames alike: it works on the last three
dimensions, whatever lies before them. All randomness comes from torch's default generator, which the loader seeds for
every sample; a view of your own that draws from it (as torchvision's transforms do, once for a clip too) is
reproducible as well.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from jepa_pretrain.contracts import UserError

ATTEMPTS = 10
LUMA = torch.tensor([[[0.2989]], [[0.587]], [[0.114]]])  # ITU-R 601, as in torchvision and Pillow
COMPLEMENTS = torch.tensor([[[3.0]], [[5.0]], [[1.0]]])  # hues of cyan, magenta, yellow, in sixths of the circle


class View(ABC):
    """Turns a clip, or a picture, into what a method sees of it."""

    @abstractmethod
    def __call__(self, image: Tensor) -> Tensor:
        """(..., C, H, W) uint8 -> (..., C, h, w) uint8, drawn with torch's CPU generator, once for all frames."""


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Bicubic, antialiased, on uint8; channels that lie last in memory stay last.

    Args:
        image: A picture (C, H, W), or frames (T, C, H, W).
        height: Of the result, pixels.
        width: Of the result, pixels.
    """
    if image.shape[-2:] == (height, width):
        return image
    batch = image if image.ndim == 4 else image[None]
    if image.stride(-3) == 1:  # torch works on channels that lie last, if there are no gaps: a third quicker
        batch = batch.contiguous(memory_format=torch.channels_last)
    small = interpolate(batch, (height, width), mode="bicubic", antialias=True)
    return small if image.ndim == 4 else small[0]


def crop_box(height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]) -> tuple[int, ...]:
    """A random box (top, left, height, width): its share of the area is uniform in `scale`, the logarithm of its
    aspect in `ratio`; ten attempts, then the largest central box (Szegedy et al. 2014, section 6).

    Args:
        height: Rows of the picture.
        width: Columns of the picture.
        scale: Smallest and largest share of the picture's area.
        ratio: Smallest and largest width / height.
    """
    draws = torch.rand(2 * ATTEMPTS + 2).tolist()
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for area, aspect in zip(draws[0:-2:2], draws[1:-2:2], strict=True):
        pixels = height * width * (scale[0] + area * (scale[1] - scale[0]))
        shape = math.exp(low + aspect * (high - low))
        w, h = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < w <= width and 0 < h <= height:
            return int(draws[-2] * (height - h + 1)), int(draws[-1] * (width - w + 1)), h, w
    h, w = min(height, round(width / ratio[0])), min(width, round(height * ratio[1]))
    h, w = max(h, 1), max(w, 1)
    return (height - h) // 2, (width - w) // 2, h, w


class RandomCrop(View):
    """A random part of the picture, resized; I-JEPA's only augmentation.

    Args:
        size: Height and width of the result, pixels.
        scale: Smallest and largest share of the picture's area.
        ratio: Smallest and largest width / height.
        flip: Probability of mirroring left and right (the published I-JEPA recipe has none).
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.3, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.0,
    ):
        if size < 1 or not 0 < scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
            raise UserError(f"impossible crop: size {size}, scale {scale}, ratio {ratio}")
        self.size, self.scale, self.ratio, self.flip = size, tuple(scale), tuple(ratio), flip

    def __call__(self, image: Tensor) -> Tensor:
        top, left, height, width = crop_box(*image.shape[-2:], self.scale, self.ratio)
        view = resize(image[..., top : top + height, left : left + width], self.size, self.size)
        return view.flip(-1) if self.flip and torch.rand(()).item() < self.flip else view


class CentreCrop(View):
    """The middle of the picture, for evaluation; a picture that already has the size stays as it is.

    Args:
        size: Height and width of the result, pixels.
        resize: The short side before cropping; by default size x 256 / 224, the ImageNet custom.
    """

    def __init__(self, size: int, resize: int | None = None):
        if size < 1 or (resize is not None and resize < size):
            raise UserError(f"impossible crop: size {size} of a picture resized to {resize}")
        self.size, self.resize = size, resize or round(size * 256 / 224)

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if height == width == self.size:
            return image
        factor = self.resize / min(height, width)
        image = resize(image, max(round(height * factor), self.size), max(round(width * factor), self.size))
        top, left = (image.shape[-2] - self.size) // 2, (image.shape[-1] - self.size) // 2
        return image[..., top : top + self.size, left : left + self.size]


class Augment(View):
    """Random crop, flip, colour jitter, grey, blur and solarisation, as in VICReg (2105.04906, appendix C) and BYOL.

    The two published views differ: the first has blur 1.0 and solarize 0, the second blur 0.1 and solarize 0.2. The
    blur's deviation is 0.1 to 2 pixels of a 224-pixel picture and shrinks with `size`.

    Args:
        size: Height and width of the result, pixels.
        scale: Smallest and largest share of the picture's area.
        flip: Probability of mirroring left and right.
        jitter: Probability of the four colour changes that follow, which come in random order.
        brightness: Greatest change of brightness, as a factor 1 +- this.
        contrast: Greatest change of contrast, as a factor 1 +- this.
        saturation: Greatest change of saturation, as a factor 1 +- this.
        hue: Greatest turn of the hue, as a part of the full circle, at most 0.5.
        gray: Probability of dropping the colours.
        blur: Probability of Gaussian blur.
        solarize: Probability of inverting all values from 128 on.
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        flip: float = 0.5,
        jitter: float = 0.8,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.2,
        hue: float = 0.1,
        gray: float = 0.2,
        blur: float = 1.0,
        solarize: float = 0.0,
    ):
        self.size, self.crop = size, RandomCrop(size, scale, flip=flip)
        self.strength = (brightness, contrast, saturation, hue)
        self.jitter, self.gray, self.blur, self.solarize = jitter, gray, blur, solarize

    def __call__(self, image: Tensor) -> Tensor:
        view = self.crop(image).to(
            torch.float32, memory_format=torch.contiguous_format
        )  # one conversion for all that follows; values 0..255
        chance = torch.rand(9).tolist()
        if chance[0] < self.jitter:
            view = self._jitter(view, chance[5:9])
        if chance[1] < self.gray:
            view = luma(view).expand_as(view)
        if chance[2] < self.blur:
            view = blur(view, (0.1 + 1.9 * chance[3]) * self.size / 224)
        if chance[4] < self.solarize:
            view = torch.where(view >= 128, 255 - view, view)
        return view.round().clamp_(0, 255).to(torch.uint8)

    def _jitter(self, view: Tensor, chance: list[float]) -> Tensor:
        amounts = [(2 * draw - 1) * strength for draw, strength in zip(chance, self.strength, strict=True)]
        for change in torch.randperm(4).tolist():
            amount = amounts[change]
            if self.strength[change] == 0:
                continue
            if change == 0:
                view = (view * (1 + amount)).clamp_(0, 255)
            elif change == 1:
                view = view.lerp(luma(view).mean(), -amount).clamp_(0, 255)
            elif change == 2:
                view = view.lerp(luma(view), -amount).clamp_(0, 255)
            else:
                view = turn_hue(view, amount)
        return view


def luma(image: Tensor) -> Tensor:
    """Brightness: (..., 3, H, W) -> (..., 1, H, W)."""
    return (image * LUMA).sum(-3, keepdim=True)


def turn_hue(image: Tensor, amount: float) -> Tensor:
    """Turns the hue by a part of the full circle, keeping HSV saturation and value; (..., 3, H, W) float.

    Back to RGB in closed form: with the hue h in sixths of the circle, a channel is v - c clamp(2 - |d|, 0, 1), where d
    is the distance on the circle from h + amount to the channel's complement (cyan 3, magenta 5, yellow 1).
    """
    red, green, blue = image.unbind(-3)
    top = image.amax(-3)
    span = top - image.amin(-3)
    sixths = torch.where(top == green, blue - red + 2 * span, red - green + 4 * span)
    sixths = torch.where(top == red, green - blue, sixths) / span.clamp_min(1e-6)
    distance = sixths.unsqueeze(-3) - (COMPLEMENTS - 6 * amount)
    distance = distance.sub_((distance / 6).round_(), alpha=6).abs_()
    return torch.addcmul(top.unsqueeze(-3), span.unsqueeze(-3), (2 - distance).clamp_(0, 1), value=-1)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur: (..., C, H, W) float, sigma in pixels; weights are renormalised at the edges.

    Rows and columns are blurred by one matrix product each: for small pictures far quicker than a convolution.
    """
    if sigma < 0.3:  # nothing would change
        return image
    return gaussian(image.shape[-2], sigma) @ image @ gaussian(image.shape[-1], sigma).T


def gaussian(size: int, sigma: float) -> Tensor:
    """(size, size) matrix whose row i holds the weights of all pixels in the blurred pixel i."""
    place = torch.arange(size, dtype=torch.float32)
    return torch.softmax((place[:, None] - place).square_().mul_(-0.5 / sigma**2), 1)

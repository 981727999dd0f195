"""Any timm model as an Encoder."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.models.normalise import Normalise


class TimmEncoder(nn.Module):
    """A timm backbone (ResNet, ConvNeXt, ViT, ...) that returns its last feature map as a grid of tokens.

    Class and register tokens are dropped. A ResNet-50 at 224 px gives `(B, 49, 2048)` on `Grid(1, 7, 7)`.

    Args:
        name: timm's model name, e.g. `resnet50`.
        image_size: side of the square picture, pixels.
        cifar_stem: for ResNets on small pictures: a 3x3 stride-1 stem and no max-pooling (Chen et al. 2020, B.9).
        pretrained: start from timm's weights, downloaded.
        mean: pixel mean per channel on the scale 0..1; timm's own for this model by default.
        std: pixel deviation per channel on the scale 0..1; timm's own for this model by default.
        options: what differs from timm's model of this name, as arguments of its constructor, such as `{"depth": 4}`.
        eps: the layer norms' epsilon; timm's own by default.
    """

    def __init__(
        self,
        name: str,
        image_size: int = 224,
        cifar_stem: bool = False,
        pretrained: bool = False,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        options: dict[str, Any] | None = None,
        eps: float | None = None,
    ) -> None:
        super().__init__()
        if not timm.is_model(name):
            near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5])
            raise UserError(f"timm has no model '{name}'" + (f"; near it: {near}" if near else ""))
        known = timm.get_pretrained_cfg(name)
        sized = {"img_size": image_size} if known.fixed_input_size else {}
        options = dict(options or {})
        self.model = timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="", **sized, **options)
        for part in self.model.modules():
            if eps is not None and isinstance(part, nn.LayerNorm):
                part.eps = eps
        if isinstance(self.model, timm.models.resnet.ResNet) and "channels" in options:
            self._use_wide_stem(options["channels"][0])
        if cifar_stem:
            self._use_cifar_stem(name)
        mean, std = mean or known.mean, std or known.std
        self.config = dict(
            name=name, image_size=image_size, cifar_stem=cifar_stem, mean=list(mean), std=list(std),
            **({"options": options} if options else {}), **({"eps": eps} if eps is not None else {}),
        )  # fmt: skip
        self.normalise = Normalise(mean, std)
        self.model.to(memory_format=torch.channels_last)  # convolutions are 1.5x quicker so, on CPU and GPU
        self.image_size, self.width = image_size, self.model.num_features
        self.grid = self._measure_grid()

    def _use_cifar_stem(self, name: str) -> None:
        if not isinstance(self.model, timm.models.resnet.ResNet) or not isinstance(self.model.conv1, nn.Conv2d):
            raise UserError(f"cifar_stem is for plain ResNets, not for {name}")
        self.model.conv1 = nn.Conv2d(3, self.model.conv1.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.model.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.model.maxpool = nn.Identity()

    def _use_wide_stem(self, stem: int) -> None:
        """A stem as wide as the first stage, as in wide ResNets of self-supervised learning; timm's always has 64."""
        first, planes = self.model.layer1[0], self.model.layer1[0].conv1.out_channels
        self.model.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.model.bn1 = nn.BatchNorm2d(stem)
        kernel = first.conv1.kernel_size
        first.conv1 = nn.Conv2d(stem, planes, kernel, padding=first.conv1.padding, bias=False)
        if first.downsample is not None:
            first.downsample[0] = nn.Conv2d(stem, first.downsample[0].out_channels, 1, bias=False)

    @torch.no_grad()
    def _measure_grid(self) -> Grid:
        training = self.model.training
        features = self.model.eval().forward_features(torch.zeros(1, 3, self.image_size, self.image_size))
        self.model.train(training)
        if features.ndim == 4:
            axis = 1 if features.shape[1] == self.width else 3
            h, w = (n for i, n in enumerate(features.shape[1:], start=1) if i != axis)
        else:
            h, w = self.model.patch_embed.grid_size
        return Grid(1, h, w)

    def _tokens(self, features: Tensor, width: int) -> Tensor:
        """(B, D, h, w), (B, h, w, D) or (B, prefix + N, D) -> (B, N, D)."""
        if features.ndim == 4:
            return features.flatten(2).mT if features.shape[1] == width else features.flatten(1, 2)
        return features[:, self.model.num_prefix_tokens :]

    def _image(self, clip: Tensor, keep: Tensor | None) -> Tensor:
        if keep is not None:
            raise UserError(f"{self.config['name']} cannot drop tokens: masked methods need a ViT")
        if clip.shape[2] != 1:
            raise UserError(f"{self.config['name']} takes images, got a clip of {clip.shape[2]} frames")
        return self.normalise(clip).squeeze(2).contiguous(memory_format=torch.channels_last)

    def forward(self, clip: Tensor, keep: Tensor | None = None) -> Tensor:
        """Tokens of an image `(B, C, 1, H, W)` -> `(B, N, D)`; see `contracts.Encoder`."""
        return self._tokens(self.model.forward_features(self._image(clip, keep)), self.width)

    def forward_layers(self, clip: Tensor, layers: int) -> list[Tensor]:
        """Tokens after each of the last `layers` blocks or stages, oldest first, each `(B, N_i, D_i)`."""
        maps = self.model.forward_intermediates(
            self._image(clip, None), indices=layers, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return [m.flatten(2).mT for m in maps]

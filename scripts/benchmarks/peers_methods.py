"""Other people's methods behind one small interface, each with the hyper-parameters its authors publish.

Nothing is copied: the losses, heads, transforms, optimisers and schedules are imported from the peer packages.

`lightly-vicreg` (lightly 1.6; source: `docs/source/getting_started/benchmarks/imagenette_benchmark.py`, lightly's only
    small-image VICReg benchmark): ResNet-18, head 512-2048-2048-2048 with batch norm, loss weights 25/25/1, LARS with
    lr 0.3 x batch/256, momentum 0.9, weight decay 1e-4, 10 % linear warm-up then cosine to 1e-3 x ("training diverges
    without LARS", they write). Transform: `VICRegTransform(input_size=32)`, as in their CIFAR-10 example. Batch 256.
`lightly-vicreg-example` (source: `examples/pytorch/vicreg.py`, their CIFAR-10 example): head 512-2048-2048, SGD with
    constant lr 0.06, no momentum, no weight decay, same transform, batch 256. With the stem below it diverged within
    three steps here.
    In both, the encoder is a torchvision ResNet-18 with the CIFAR stem (3x3 convolution of stride 1, no max-pool),
    which lightly's example lacks: without it a 32-pixel picture ends on a 1x1 grid, so this favours the peer.
`stable-pretraining-ijepa` (stable-pretraining 0.1.8; source: `benchmarks/imagenet10/ijepa-vit-small.py`, which reached
    34.0 % on Imagenette): `methods.IJEPA` over a timm ViT (learned positions), AdamW lr 1e-3, betas (0.9, 0.95),
    weight decay 0.04, 10 % linear warm-up from 1 % and cosine to 6e-5, EMA 0.996 -> 1 updated after backward,
    4 targets of 0.15-0.2, aspect 0.75-1.5, context 0.85-1; random resized crop 0.3-1 without flip; batch 64;
    predictor as wide as the encoder (as in their benchmark and in their ViT-tiny test) and 6 deep (the class default
    and that test). Two differences, both in its favour: the EMA coefficient moves with each step instead of each epoch
    (an hour holds few epochs), and the full student pass that only feeds their online probe is left out.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from lightly.loss import VICRegLoss
from lightly.models.modules.heads import BarlowTwinsProjectionHead, VICRegProjectionHead
from lightly.transforms.vicreg_transform import VICRegTransform
from lightly.utils.lars import LARS
from lightly.utils.scheduler import CosineWarmupScheduler
from PIL import Image
from stable_pretraining.data import static, transforms
from stable_pretraining.methods.ijepa import IJEPA
from stable_pretraining.optim.lr_scheduler import LinearWarmupCosineAnnealing
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torchvision.models import resnet18
from torchvision.transforms import v2

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Size(NamedTuple):
    """The size of a ViT (ResNets ignore it), and of the batch where the published one is not wanted."""

    width: int
    depth: int
    heads: int
    patch: int
    predictor_depth: int
    batch: int | None


class Layers(NamedTuple):
    """Pooled features of a batch: the last layer, and the last four side by side, oldest first."""

    last: Tensor  # (B, D)
    four: Tensor  # (B, D_1 + ... + D)


class Peer(Protocol):
    """One way of training; `views` maps a picture to tensors, `loss` a collated batch to a scalar."""

    model: nn.Module
    batch_size: int

    def views(self, picture: Image.Image) -> list[Tensor]: ...

    def loss(self, views: list[Tensor]) -> Tensor: ...

    def optimisation(self, steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]: ...

    def after_backward(self, step: int, steps: int) -> None: ...

    def eval_view(self) -> Callable[[Image.Image], Tensor]: ...

    def features(self, images: Tensor) -> dict[str, Layers]: ...


def cifar_resnet18() -> nn.Module:
    """A torchvision ResNet-18 with 3x3 stem and no max-pool; no classifier."""
    encoder = resnet18()
    encoder.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    encoder.maxpool = nn.Identity()
    encoder.fc = nn.Identity()
    return encoder


def recorded(module: nn.Module, layers: list[nn.Module], images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Runs `module` on images and returns its output with the outputs of the named layers."""
    outputs: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _m, _i, out: outputs.append(out)) for layer in layers]
    result = module(images)
    for hook in hooks:
        hook.remove()
    return result, outputs


class LightlyVICReg:
    """VICReg as lightly benchmarks it."""

    def __init__(self, size: Size) -> None:
        self.batch_size = size.batch or 256
        self.model = nn.ModuleDict({"encoder": cifar_resnet18(), "head": self.head()})
        self.objective = VICRegLoss()
        self.views = VICRegTransform(input_size=32)

    def head(self) -> nn.Module:
        return BarlowTwinsProjectionHead(512, 2048, 2048)

    def loss(self, views: list[Tensor]) -> Tensor:
        first, second = (self.model["head"](self.model["encoder"](view)) for view in views)
        return self.objective(first, second)

    def optimisation(self, steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
        lr = 0.3 * self.batch_size / 256
        optimiser = LARS(self.model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
        return optimiser, CosineWarmupScheduler(optimiser, warmup_epochs=steps // 10, max_epochs=steps)

    def after_backward(self, step: int, steps: int) -> None:
        pass

    def eval_view(self) -> Callable[[Image.Image], Tensor]:
        return v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*IMAGENET)])

    def features(self, images: Tensor) -> dict[str, Layers]:
        encoder = self.model["encoder"]
        stages = [encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4]
        last, maps = recorded(encoder, stages, images)  # (B, 512), four of (B, C, h, w)
        return {"encoder": Layers(last, torch.cat([one.mean(dim=(2, 3)) for one in maps], dim=1))}


class LightlyVICRegExample(LightlyVICReg):
    """VICReg as lightly's CIFAR-10 example trains it."""

    def head(self) -> nn.Module:
        return VICRegProjectionHead(512, 2048, 2048, num_layers=2)

    def optimisation(self, steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
        optimiser = torch.optim.SGD(self.model.parameters(), lr=0.06)
        return optimiser, LambdaLR(optimiser, lambda _: 1.0)


class StableIJEPA:
    """I-JEPA as stable-pretraining benchmarks it."""

    def __init__(self, size: Size) -> None:
        self.batch_size = size.batch or 64
        shape = {"patch_size": size.patch, "embed_dim": size.width, "depth": size.depth, "num_heads": size.heads}
        encoder = VisionTransformer(img_size=32, num_classes=0, **shape)
        self.model = IJEPA(encoder, predictor_embed_dim=size.width, predictor_depth=size.predictor_depth)
        self.crop = transforms.Compose(
            transforms.RGB(),
            transforms.RandomResizedCrop((32, 32), scale=(0.3, 1.0)),
            transforms.ToImage(**static.CIFAR10),
        )

    def views(self, picture: Image.Image) -> list[Tensor]:
        return [self.crop({"image": picture})["image"]]

    def loss(self, views: list[Tensor]) -> Tensor:
        return self.model(views[0]).loss

    def optimisation(self, steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.04)
        return optimiser, LinearWarmupCosineAnnealing(optimiser, steps, start_factor=0.01, end_lr=6e-5, peak_step=0.1)

    def after_backward(self, step: int, steps: int) -> None:
        self.model.encoder.update_ema_coefficient(step, steps)
        self.model.encoder.update_teacher()

    def eval_view(self) -> Callable[[Image.Image], Tensor]:
        whole = transforms.Compose(transforms.RGB(), transforms.ToImage(**static.CIFAR10))
        return lambda picture: whole({"image": picture})["image"]

    def features(self, images: Tensor) -> dict[str, Layers]:
        """Of both encoders: `student` is the one its documentation hands on, `teacher` the paper's."""
        twins = self.model.encoder
        found, student = {}, twins.student
        for name, encoder in (("student", student), ("teacher", twins.teacher)):
            twins.student = encoder  # the method's evaluation pass reads `encoder.student`
            output, blocks = recorded(self.model, list(encoder.vit.blocks[-4:]), images)  # all (B, N, D)
            four = torch.cat([encoder.vit.norm(block).mean(dim=1) for block in blocks], dim=1)
            found[name] = Layers(output.embedding.mean(dim=1), four)
        twins.student = student
        return found


PEERS = {
    "lightly-vicreg": LightlyVICReg,
    "lightly-vicreg-example": LightlyVICRegExample,
    "stable-pretraining-ijepa": StableIJEPA,
}

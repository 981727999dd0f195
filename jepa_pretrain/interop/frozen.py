"""The frozen encoder: what is left of a pretraining run, and all that an evaluation or an agent ever sees of it."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.interop.architectures import describe
from jepa_pretrain.interop.checkpoint import read
from jepa_pretrain.interop.export import from_checkpoint
from jepa_pretrain.interop.exported import read_exported
from jepa_pretrain.interop.files import read_folder_json
from jepa_pretrain.interop.from_timm import by_name
from jepa_pretrain.interop.reading import is_ours, is_training_checkpoint, read_parts
from jepa_pretrain.interop.spec import parse
from jepa_pretrain.interop.tails import Backbone, Classifier
from jepa_pretrain.interop.transform import Transform, opened
from jepa_pretrain.models.rotary_vit import MixedViT


class FrozenEncoder(nn.Module):
    """An encoder that never trains: no gradients, always in evaluation mode.

    Args:
        encoder: The encoder to freeze; it is changed in place.
        provenance: What is known of its training.
        name: What the user called it, for tables and messages.
        untrained: Its weights are fresh, so statistics of batch-norm layers are meaningless until calibrated.
    """

    def __init__(
        self,
        encoder: nn.Module,
        provenance: dict[str, Any] | None = None,
        name: str = "encoder",
        untrained: bool = False,
    ):
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)
        self.grid = Grid(*encoder.grid)
        self.width = encoder.width
        self.image_size = encoder.image_size
        self.config = describe(encoder)
        self.frames = self.config["args"].get("frames", 1)  # of a clip that it takes; 1 for pictures
        self.provenance = provenance or {}
        self.name = name
        self.untrained = untrained

    @classmethod
    def load(cls, path: str | Path, image_size: int | None = None) -> Self:
        """Load an encoder, on the CPU.

        Args:
            path: An exported folder; a training checkpoint; a file of Meta's (I-JEPA, V-JEPA, V-JEPA 2, VICReg,
                VICRegL); a folder of transformers' or timm's (`timm:local-dir:FOLDER`); `timm:NAME` for timm's
                pretrained weights; `random:NAME` for an untrained timm model; `random:FOLDER` for the architecture of
                an exported folder with fresh weights (seed 0), which is the baseline to compare that export with.
                Options follow a question mark, see `interop.spec`: `vjepa2:vitl.pt?frames=16`.
            image_size: Input size, pixels, to which the positions of a transformer are interpolated; its own by
                default, 224 for a timm model by name. Of an exported folder it cannot be changed.

        Raises:
            UserError: No such folder or model, a damaged file, or a config that contradicts the weights.
        """
        spec = parse(str(path), image_size)
        untrained, place = spec.kind == "random", Path(spec.place)
        if spec.kind in ("random", "timm") and not place.is_dir() and not spec.place.startswith("local-dir:"):
            encoder = by_name(spec.place, spec.options.get("image_size", 224), pretrained=not untrained)
            return cls(encoder, name=str(path), untrained=untrained)
        if place.is_dir() and is_ours(read_folder_json(place, "config.json")):
            return cls(*read_exported(place, spec), name=str(path), untrained=untrained)
        if untrained:
            raise UserError(f"{path}: fresh weights are drawn for exported folders and for timm's models by name")
        if place.is_file() and is_training_checkpoint(checkpoint := read(place)):
            return cls(*from_checkpoint(place, checkpoint), name=str(path))
        if not place.exists() and not spec.place.startswith("local-dir:"):
            raise UserError(f"there is nothing at {place}: expected a folder, a checkpoint, or timm:NAME")
        parts = read_parts(spec)
        provenance = {"origin": parts.origin, "notes": list(parts.notes), "file": place.name}
        return cls(parts.encoder.make(str(path)), provenance, name=str(path))

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Tokens of images or clips.

        Args:
            images: `(B, C, H, W)` or `(B, C, T, H, W)`, uint8 in 0..255 or float in 0..1.

        Returns:
            `(B, N, D)`.
        """
        return self.encoder(self._clip(images))

    @torch.no_grad()
    def forward_layers(self, images: Tensor, layers: int) -> list[Tensor]:
        """Tokens after each of the last `layers` blocks or stages, oldest first.

        Args:
            images: As in `forward`.
            layers: How many.

        Returns:
            `layers` tensors `(B, N_i, D_i)`; the last equals `forward(images)`.
        """
        return self.encoder.forward_layers(self._clip(images), layers)

    @property
    def transform(self) -> Transform:
        """The preprocessing that this encoder wants: a picture as people have it -> `(3, H, W)` uint8."""
        return Transform(self.image_size)

    def features(self, images: Tensor, layers: int = 1, pool: Literal["mean", "map", "none"] = "mean") -> Tensor:
        """Features of pictures or clips, the last layers' side by side.

        Args:
            images: As in `forward`.
            layers: How many of the last blocks or stages; all must have one grid, except for `pool="mean"`.
            pool: `mean` averages the tokens; `none` keeps them; `map` lays them out as a picture, or as clips' maps.

        Returns:
            `(B, D)`; `(B, N, D)`; `(B, D, h, w)`, for clips `(B, D, t, h, w)`. With several layers D is their sum.

        Raises:
            UserError: An unknown `pool`, or tokens on different grids that cannot lie side by side.
        """
        tokens = self.forward_layers(images, layers) if layers > 1 else [self(images)]
        if pool == "mean":
            return torch.cat([one.mean(dim=1) for one in tokens], dim=-1)
        if pool not in ("map", "none"):
            raise UserError(f"pool is mean, map or none, not {pool!r}")
        if len({one.shape[1] for one in tokens}) > 1:
            raise UserError(
                f"the last {layers} layers of {self.name} lie on different grids: take fewer, or pool='mean'"
            )
        joined = torch.cat(tokens, dim=-1)  # (B, N, D)
        if pool == "none":
            return joined
        maps = joined.mT.unflatten(2, (-1, self.grid.h, self.grid.w))  # (B, D, t, h, w)
        return maps if images.dim() == 5 else maps.squeeze(2)

    @property
    def takes_pictures(self) -> bool:
        """Whether it takes pictures as they are; an encoder of clips alone has to be shown a picture for as long."""
        return self.frames == 1 or isinstance(self.encoder, MixedViT)

    def held(self, images: Tensor) -> Tensor:
        """Pictures `(B, C, H, W)`, as clips in which nothing moves where it takes clips alone."""
        return images if self.takes_pictures else images.unsqueeze(2).expand(-1, -1, self.frames, -1, -1)

    def embed(self, files: Sequence[str | Path], layers: int = 1, batch_size: int = 64) -> Tensor:
        """Features of picture files, `(files, D)` float32 on the CPU; of whole folders: `jepa-pretrain embed`.

        Args:
            files: Pictures of any size.
            layers: As in `features`.
            batch_size: Pictures at a time.

        Raises:
            UserError: No files, or one that is no picture.
        """
        if not files:
            raise UserError("there are no pictures to embed: the list of files is empty")
        rows, device = [], self.encoder.normalise.mean.device
        for start in range(0, len(files), batch_size):
            images = torch.stack([self.transform(opened(file)) for file in files[start : start + batch_size]])
            rows.append(self.features(self.held(images.to(device)), layers).float().cpu())
        return torch.cat(rows)

    def classifier(self, classes: int) -> Classifier:
        """A copy of the encoder that trains, with a linear layer on its averaged tokens."""
        return Classifier(copy.deepcopy(self.encoder), classes)

    def backbone(self) -> Backbone:
        """This encoder as torchvision's detectors want one."""
        return Backbone(self)

    def _clip(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` -> `(B, C, 1, H, W)`, and a plain word about a wrong size."""
        if images.dim() not in (4, 5):
            raise UserError(f"expected images (B, C, H, W) or clips (B, C, T, H, W), found shape {tuple(images.shape)}")
        size, found = (self.image_size, self.image_size), tuple(images.shape[-2:])
        if found != size:
            raise UserError(f"{self.name} takes {size[0]}x{size[1]} pixels, found {found[0]}x{found[1]}; resize first")
        return images.unsqueeze(2) if images.dim() == 4 else images

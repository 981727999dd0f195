"""The frozen encoder: what is left of a pretraining run, and all that an evaluation or an agent ever sees of it."""

from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from jepa_pretrain.contracts import Grid, UserError
from jepa_pretrain.interop.architectures import build, describe
from jepa_pretrain.interop.export import FORMAT, fill, normalisation, shapes
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.untrusted import MIB, parse_json, printable, read_text, shown

LARGEST = 16 * MIB  # bytes of a config.json; a million class names fit


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
    def load(cls, path: str | Path, image_size: int = 224) -> Self:
        """Load an encoder, on the CPU.

        Args:
            path: An exported folder; `timm:NAME` for timm's pretrained weights; `random:NAME` for an untrained timm
                model; `random:FOLDER` for the architecture of an exported folder with fresh weights (seed 0), which
                is the baseline to compare that export with.
            image_size: Input size of a timm model; an exported folder knows its own.

        Raises:
            UserError: No such folder or model, a damaged file, or a config that contradicts the weights.
        """
        spec = str(path)
        if spec.startswith("timm:"):
            return cls(_timm(spec.removeprefix("timm:"), image_size, pretrained=True), name=spec)
        untrained = spec.startswith("random:")
        place = spec.removeprefix("random:")
        if untrained and not Path(place).is_dir():
            return cls(_timm(place, image_size, pretrained=False), name=spec, untrained=True)
        config, weights = _read_config(Path(place)), _read_weights(Path(place))
        encoder = build(config["architecture"], shapes(weights), source=place)
        if not untrained:
            fill(encoder, weights, source=place)
        _check(config, encoder, place)
        provenance = {} if untrained else config["provenance"]
        return cls(encoder, provenance, name=spec, untrained=untrained)

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

    def _clip(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` -> `(B, C, 1, H, W)`, and a plain word about a wrong size."""
        if images.dim() not in (4, 5):
            raise UserError(f"expected images (B, C, H, W) or clips (B, C, T, H, W), found shape {tuple(images.shape)}")
        size, found = (self.image_size, self.image_size), tuple(images.shape[-2:])
        if found != size:
            raise UserError(f"{self.name} takes {size[0]}x{size[1]} pixels, found {found[0]}x{found[1]}; resize first")
        return images.unsqueeze(2) if images.dim() == 4 else images


def _timm(name: str, image_size: int, pretrained: bool) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return TimmEncoder(name, image_size=image_size, pretrained=pretrained)
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{name!r} is neither an exported folder nor a timm model that loads: {reason}") from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is no exported encoder: no config.json there (`jepa-pretrain export` makes one)")
    config = parse_json(read_text(_inside(path), LARGEST), str(path))
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise UserError(f"{path} is not of export format {FORMAT}; it may be newer than this package, or no export")
    absent = {"architecture", "normalisation", "image_size", "grid", "width", "provenance"} - config.keys()
    if absent:
        raise UserError(f"{path} lacks {', '.join(sorted(absent))}; export the encoder again")
    for key in ("normalisation", "provenance"):
        if not isinstance(config[key], dict):
            raise UserError(f"{path} is damaged: {key} should hold names and values, found {shown(config[key])}")
    return config


def _inside(path: Path) -> Path:
    """A file of the folder itself: a link out of it would let an export show what lies elsewhere."""
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise UserError(f"{path} is a link that leads out of its folder: put the file itself there if you trust it")
    return path


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise UserError(f"no weights at {path}")
    try:
        return load_file(_inside(path))
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{path} is truncated or damaged: {printable(str(error))[:200]}") from error


def _check(config: dict[str, Any], encoder: nn.Module, source: str) -> None:
    """Refuse a config whose own statements contradict the encoder that it builds."""
    built = {"grid": list(encoder.grid), "width": encoder.width, "image_size": encoder.image_size}
    for key, expected in built.items():
        if config[key] != expected:
            raise UserError(
                f"{source}/config.json: expected {key} {expected} for this class, found {shown(config[key])}"
            )
    for key, expected in normalisation(encoder).items():
        found = config["normalisation"].get(key)
        if found != expected:
            raise UserError(f"{source}/config.json: expected {key} {expected}, found {shown(found)}")

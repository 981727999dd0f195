"""What users put behind an encoder most often: a linear layer to train with it, or a detector."""

from torch import Tensor, nn


class Classifier(nn.Module):
    """An encoder and a linear layer on its averaged tokens; all of it trains.

    Args:
        encoder: Clips to tokens.
        classes: Numbers that come out.
    """

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(True).train()
        self.head = nn.Linear(encoder.width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures `(B, 3, H, W)` or clips `(B, 3, T, H, W)`, uint8 or float in 0..1 -> `(B, classes)`."""
        tokens = self.encoder(images.unsqueeze(2) if images.dim() == 4 else images)
        return self.head(tokens.mean(dim=1))


class Backbone(nn.Module):
    """A frozen encoder as torchvision's detectors want one; they should not normalise, the encoder does.

    Args:
        encoder: A `FrozenEncoder`.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.out_channels = encoder, encoder.width

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Pictures `(B, 3, H, W)`, float in 0..1 -> the one map `{"0": (B, D, h, w)}`."""
        return {"0": self.encoder.features(images, pool="map")}

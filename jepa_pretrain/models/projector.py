"""The MLP after a pooled encoder: VICReg's expander, and every other joint-embedding method's projector."""

from torch import Tensor, nn


class Projector(nn.Sequential):
    """Linear, batch norm, ReLU, as often as `hidden` says, then a linear layer without bias (VICReg, section 4.2).

    Args:
        encoder_width: width D of the pooled features that come in.
        hidden: widths of the hidden layers.
        out: width of the embedding.
    """

    def __init__(self, encoder_width: int, hidden: tuple[int, ...] = (8192, 8192), out: int = 8192) -> None:
        layers, width = [], encoder_width
        for h in hidden:
            layers += [nn.Linear(width, h), nn.BatchNorm1d(h), nn.ReLU(inplace=True)]
            width = h
        super().__init__(*layers, nn.Linear(width, out, bias=False))
        self.config = dict(encoder_width=encoder_width, hidden=list(hidden), out=out)

    def forward(self, features: Tensor) -> Tensor:
        """`(B, D)` -> `(B, out)`."""
        return super().forward(features)

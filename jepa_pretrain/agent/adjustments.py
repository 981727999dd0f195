"""What learning from surprise is told, keeps and tells."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from jepa_pretrain.contracts import UserError


class Parted(NamedTuple):
    """What was expected and what came, of K blocks of actions."""

    state: Tensor  # (K, N, D)
    action: Tensor  # (K, A)
    expected: Tensor  # (K, N, D)
    after: Tensor  # (K, N, D)
    promised: Tensor  # (K,) cost of what was expected
    paid: Tensor  # (K,) cost of what came
    error: Tensor  # (K,)


@dataclass(frozen=True)
class Settings:
    """When and how to adjust.

    Args:
        window: last blocks, of all environments together, by which surprise is judged.
        high: usual quantile of the errors; half of the window above it is a surprise.
        low: usual quantile below which half of the window must lie for the surprise to be over.
        steps: of AdamW each time that a window is surprising.
        batch: observations per step, and as many recorded ones.
        rate: learning rate.
        least: times in a row, before what is predicted well at once is believed to be predicted well.
        most: times in a row; a surprise that stays is then taken as usual.
        kept: blocks that are remembered.
        translate: fit how the actions were changed, and translate the recordings.

    Raises:
        UserError: a window below 8, or quantiles outside 0.5..1 or in the wrong order.
    """

    window: int = 64
    high: float = 0.95
    low: float = 0.9
    steps: int = 300
    batch: int = 64
    rate: float = 5e-4
    least: int = 3
    most: int = 12
    kept: int = 4096
    translate: bool = True

    def __post_init__(self) -> None:
        if self.window < 8 or not 0.5 <= self.low <= self.high < 1:
            raise UserError(
                f"learning from surprise needs a window of 8 or more and .5 <= low <= high < 1, found {self}"
            )


@dataclass
class Told:
    """What learning from surprise did."""

    blocks: int = 0  # that were compared
    surprises: int = 0
    updates: int = 0  # steps of the optimiser
    recognised: int = 0  # times that an old dynamics was taken up again
    given_up: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def note(self, what: str, **numbers: float) -> None:
        """One line of what happened, at the present block."""
        self.events.append({"block": self.blocks, "what": what} | numbers)

"""Tells a spike of the loss from its ordinary noise."""

from collections import deque
from statistics import median

TO_DEVIATION = 1.4826  # of the median absolute deviation, to the standard deviation of a normal distribution


class Course:
    """The recent course of the loss, by median and median absolute deviation, which a few spikes do not move.

    A spike is a loss far above the median: `patience` steps in a row, or one step that is `ENORMOUS` times as far. It
    is told once; the next may be told after a step that is no longer high. A loss that falls, or rises steadily, gives
    none: the window moves along, and its deviation grows with the slope.

    Args:
        spike: how many deviations above the median are far.
        patience: steps in a row that make a spike.
        window: steps that make the course; nothing is told in the first half of it.
    """

    ENORMOUS = 5.0  # times as far as `spike`: told at once
    LEAST = 0.01  # of the median: a deviation is never taken for smaller

    def __init__(self, spike: float = 10.0, patience: int = 3, window: int = 100) -> None:
        self.spike, self.patience = spike, patience
        self.losses: deque[float] = deque(maxlen=window)
        self.high, self.told = 0, False

    def add(self, loss: float) -> float | None:
        """Take the loss of a step; how many deviations above the median it is where that makes a spike, else None.

        Args:
            loss: a finite number.
        """
        height = self._height(loss)
        self.losses.append(loss)
        if height <= self.spike:
            self.high, self.told = 0, False
            return None
        self.high += 1
        if self.told or (self.high < self.patience and height <= self.ENORMOUS * self.spike):
            return None
        self.told = True
        return height

    def _height(self, loss: float) -> float:
        if len(self.losses) < self.losses.maxlen // 2:
            return 0.0
        middle = median(self.losses)
        deviation = TO_DEVIATION * median(abs(one - middle) for one in self.losses)
        return (loss - middle) / max(deviation, self.LEAST * abs(middle), 1e-12)

    def state_dict(self) -> dict:
        return {"losses": list(self.losses), "high": self.high, "told": self.told}

    def load_state_dict(self, state_dict: dict) -> None:
        self.losses.clear()
        self.losses.extend(state_dict["losses"])
        self.high, self.told = state_dict["high"], state_dict["told"]

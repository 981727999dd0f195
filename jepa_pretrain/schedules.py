"""A value as a function of training progress in [0, 1].

Schedules hold no state: a resumed run asks again with the same progress and gets the same value.
"""

import math
from abc import ABC, abstractmethod


class Schedule(ABC):
    """A scalar that depends on progress alone."""

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """The value at `progress`, the share of optimiser steps already taken, in [0, 1]."""


class Constant(Schedule):
    """Always the same value.

    Args:
        value: the value.
    """

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, progress: float) -> float:
        return self.value


class Linear(Schedule):
    """From start to end in a straight line.

    Args:
        start: value at the first step.
        end: value at the last step.
    """

    def __init__(self, start: float, end: float) -> None:
        self.start, self.end = start, end

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


class Cosine(Schedule):
    """From start to end along half a cosine.

    Args:
        start: value at the first step.
        end: value at the last step.
    """

    def __init__(self, start: float, end: float) -> None:
        self.start, self.end = start, end

    def __call__(self, progress: float) -> float:
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * progress))


class WarmupCosine(Schedule):
    """Straight up to the peak, then down along half a cosine.

    Args:
        peak: value at the end of the warm-up.
        start: value at the first step.
        end: value at the last step.
        warmup: length of the warm-up as a share of the run, in [0, 1).
    """

    def __init__(self, peak: float, start: float = 0.0, end: float = 0.0, warmup: float = 0.1) -> None:
        if not 0.0 <= warmup < 1.0:
            raise ValueError(f"warmup is a share of the run in [0, 1), not {warmup}")
        self.warmup = warmup
        self.rise, self.fall = Linear(start, peak), Cosine(peak, end)

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return self.rise(progress / self.warmup)
        return self.fall((progress - self.warmup) / (1.0 - self.warmup))


class Ramp(Schedule):
    """Nothing at first, then straight up to a value that is held.

    Args:
        value: the value held.
        begin: progress at which it leaves zero.
        full: progress at which the value is reached.
    """

    def __init__(self, value: float, begin: float = 0.0, full: float = 0.1) -> None:
        if not 0.0 <= begin < full:
            raise ValueError(f"a ramp begins before it is full, not at {begin} and {full}")
        self.value, self.begin, self.full = value, begin, full

    def __call__(self, progress: float) -> float:
        return self.value * min(max((progress - self.begin) / (self.full - self.begin), 0.0), 1.0)


class Cut(Schedule):
    """The beginning of a longer schedule: a run that stops before the schedule ends.

    Args:
        schedule: the longer schedule.
        share: share of it that the run covers, in (0, 1].
    """

    def __init__(self, schedule: Schedule, share: float) -> None:
        if not 0.0 < share <= 1.0:
            raise ValueError(f"share lies in (0, 1], not at {share}")
        self.schedule, self.share = schedule, share

    def __call__(self, progress: float) -> float:
        return self.schedule(self.share * progress)

"""Which moments each level of a hierarchy has to compute, so that no frame is encoded that nobody reads.

Whole numbers only. A level is described by what it reads; the plan goes from the top down.
"""

from typing import NamedTuple, Protocol

from jepa_pretrain.contracts import UserError


class Reader(Protocol):
    """What the plan has to know of a level."""

    stride: int
    moments: int | None  # moments that its own prediction is trained on; None: all
    window: int  # moments below that a state reads
    reads_states: bool  # its macro-actions are made of the states below
    reads_actions: bool  # its actions are made of the actions below


class Reading(NamedTuple):
    """What one level computes."""

    kept: int  # moments its own prediction is trained on, from the first
    moments: list[int]  # own moments to compute, in order
    transitions: int  # own actions to compute, from the first
    below: list[int]  # moments of the level below (or of the clip) that it reads, in order


def available(levels: list[Reader], moments: int) -> list[int]:
    """How many moments each level has in a clip of so many.

    Raises:
        UserError: A level has fewer than two, so that it has nothing to predict.
    """
    counts = []
    for number, level in enumerate(levels, start=1):
        moments = (moments - 1) // level.stride + 1
        if moments < 2:
            raise UserError(
                f"level {number} has {moments} moment in these clips: give longer clips, or smaller strides"
            )
        counts.append(moments)
    return counts


def window(moment: int, level: Reader) -> list[int]:
    """Moments below that a state reads, oldest first; what would lie before the clip is its first moment."""
    end = moment * level.stride
    return [max(0, end - back) for back in range(level.window - 1, -1, -1)]


def plan(levels: list[Reader], moments: int) -> list[Reading]:
    """What to compute to train every level, for clips of so many moments."""
    counts = available(levels, moments)
    kept = [min(level.moments or count, count) for level, count in zip(levels, counts, strict=True)]
    readings: list[Reading] = []
    read, transitions_read = set(), 0  # by the level above
    for level, own in zip(reversed(levels), reversed(kept), strict=True):
        transitions = max(own - 1, transitions_read)
        wanted = sorted(set(range(own)) | read)
        read = {i for moment in wanted for i in window(moment, level)}
        if level.reads_states:
            read |= set(range(transitions * level.stride + 1))
        transitions_read = transitions * level.stride if level.reads_actions else 0
        readings.insert(0, Reading(own, wanted, transitions, sorted(read)))
    return readings


def all_moments(levels: list[Reader], moments: int) -> list[Reading]:
    """What to compute for every moment of the last level, and of the others what that reads."""
    readings: list[Reading] = []
    counts, read = [moments], set()
    for level in levels:
        counts.append((counts[-1] - 1) // level.stride + 1)
    for level, count in zip(reversed(levels), reversed(counts[1:]), strict=True):
        wanted = sorted(read) if readings else list(range(count))
        read = {i for moment in wanted for i in window(moment, level)}
        readings.insert(0, Reading(0, wanted, 0, sorted(read)))
    return readings

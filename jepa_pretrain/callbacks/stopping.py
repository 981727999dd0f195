"""Being asked to stop: Ctrl-C, SIGTERM, SIGUSR1. The run ends after a whole step, the same one on every rank."""

import os
import signal
import sys
import threading

from jepa_pretrain import distributed

PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: not finished, to be started again
CODES = {signal.SIGINT: 130, signal.SIGTERM: PREEMPTED, signal.SIGUSR1: PREEMPTED}
AGREE = 4  # several ranks: optimiser steps between two questions whether one of them was asked


class Stopped(Exception):
    """The run was asked to stop, and did.

    Args:
        message: one line for the user.
        code: exit code of the process: 130 after Ctrl-C, 75 where the run should be started again.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Request:
    """Notes that a signal came. A second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.number = 0  # of the signal; 0 until one came
        self.owner = os.getpid()
        self.training = False
        self._previous: dict[int, object] = {}

    def listen(self) -> None:
        """Take the signals, whoever had them; only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in CODES:
            handler = signal.signal(number, self._note)
            self._previous.setdefault(number, handler)

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _note(self, number: int, frame) -> None:
        if os.getpid() != self.owner:  # a data worker that has not begun yet: the training process decides
            return
        if number == signal.SIGINT and (self.number == signal.SIGINT or not self.training):
            raise KeyboardInterrupt
        if not self.training:
            sys.exit(CODES[number])
        first, self.number = not self.number, max(number, self.number)
        if first:
            again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
            text = f"\n{signal.Signals(number).name}: stopping after this step, with a checkpoint{again}\n"
            os.write(2, text.encode())  # the signal may have come in the midst of a print

    def agreed(self, step: int) -> int:
        """The signal that some rank has got, or 0; the same on all ranks, which call this at the same steps."""
        if distributed.world_size() == 1:
            return self.number
        if step % AGREE:
            return 0
        return distributed.largest(self.number)

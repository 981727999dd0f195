"""Runs something in a child process and says how it ended and what memory it took, so that a crash is a result."""

import resource
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from jepa_pretrain.contracts import UserError
from jepa_pretrain.data.images import BrokenPicture

MIB = 1 << 20
FORK = get_context("fork")
EXPECTED = (UserError, BrokenPicture)


class Outcome(NamedTuple):
    """How a child ended."""

    error: str  # the message of a UserError or BrokenPicture; "" when there was none; otherwise why it died
    peak: int  # bytes of memory that it took beyond what it began with


def in_child(work: Callable[..., object], *arguments: object, room: int = 8 << 30, seconds: int = 120) -> Outcome:
    """Calls `work` in a forked child.

    Args:
        work: What to call.
        arguments: What with.
        room: Address space that it may take beyond what it begins with; bytes.
        seconds: How long it may take.
    """
    here, there = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_run, args=(there, room, work, arguments))
    child.start()
    there.close()
    try:
        outcome = here.recv() if here.poll(seconds) else Outcome("it did not end", 0)
    except EOFError:
        outcome = Outcome("", 0)
    if outcome.error == "it did not end":
        child.kill()
    child.join()
    if child.exitcode:
        return Outcome(f"the process died with {child.exitcode} {outcome.error}", outcome.peak)
    return outcome


def _run(there, room: int, work: Callable[..., object], arguments: tuple) -> None:
    torch.set_num_threads(1)
    before, size = _resident(), int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + room, size + room))
    message = ""
    try:
        work(*arguments)
    except EXPECTED as error:
        message = f"{type(error).__name__}: {error}"
        assert "\n" not in message and message.isprintable(), message
    there.send(Outcome(message, max(_resident() - before, 0)))


def _resident() -> int:
    """Most memory that this process has held, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

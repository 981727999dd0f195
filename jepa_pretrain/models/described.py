"""Modules as plain data: a class name and arguments, in which other modules may be nested."""

from typing import Any

from torch import nn


def described(module: nn.Module | None) -> dict[str, Any] | None:
    """`{"class": name, "args": its config}`, from which `interop.architectures.build` makes it again.

    Args:
        module: a module with `config`, the plain arguments of its constructor; None stays None.
    """
    return None if module is None else {"class": type(module).__name__, "args": dict(module.config)}

"""Packages that only some formats need: imported when they are needed, with one line where they are missing."""

import importlib
from types import ModuleType

from jepa_pretrain.contracts import UserError


def extra(name: str, purpose: str) -> ModuleType:
    """A package of the `interop` extra.

    Args:
        name: The package.
        purpose: What it is needed for, for the message.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"{purpose} needs {error.name}: pip install 'jepa-pretrain[interop]'") from None

"""What a person reads when a recipe is refused: one line, with the path of the key."""

import re
from pathlib import Path

import yaml

NOISE = ("Does not validate", "Subtypes:", "Errors:", "Given value", "- Expected a <class 'NoneType'>")


def brief(message: str, words: list[str]) -> str:
    """jsonargparse's message on one line, without its account of every type it tried.

    Args:
        message: What jsonargparse says.
        words: The command line, which tells where a key stands that the message names without its path.
    """
    lines = (line.strip() for line in message.splitlines())
    text = " ".join(line for line in lines if line and not line.startswith(NOISE))
    text = re.sub(r"Expected a <class '(\w+)'>", r"expected \1", text)
    named = re.search(r"Option '(\w+)' is not accepted|Parser key \"(\w+)\":", text)
    if named is None:
        return text.replace("Parser key ", "")
    key = named[1] or named[2]
    path = where(key, words) or key
    instead = f"no such key: {path}" if named[1] else f"{path}:"
    return text.replace(named[0], instead)


def where(key: str, words: list[str]) -> str | None:
    """The dotted path of a key on the command line or in one of its recipes; None where it is in neither."""
    for word in words:
        if match := re.match(rf"--((?:\w+\.)*{re.escape(key)})(=|$)", word):
            return match[1]
    for before, word in zip([*words], [*words[1:], ""], strict=True):
        name = before.partition("=")[2] if before.startswith("--config=") else word
        if before.startswith(("--config", "-c")) and Path(name).is_file():
            found = _below(yaml.safe_load(Path(name).read_text()), key)
            if found:
                return f"{found} in {name}"
    return None


def _below(tree: object, key: str) -> str | None:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in items:
        if name == key:
            return str(name)
        if found := _below(value, key):
            return f"{name}.{found}"
    return None

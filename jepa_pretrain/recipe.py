"""What a person reads when a recipe is refused: one line, with the path of the key."""

import re

NOISE = (
    "Does not validate", "Subtypes:", "Errors:", "Given value", "Problem with given class_path",
    "Expected a <class 'NoneType'>", "Expected a path but",
)  # fmt: skip


def brief(message: str) -> str:
    """jsonargparse's message on one line, without its account of every type it tried.

    Args:
        message: What jsonargparse says; one level of indentation for each part of the recipe.
    """
    path = ".".join(re.findall(r'Parser key "([\w.]+)"', message))
    classes = re.findall(r"Problem with given class_path '([\w.]+)'", message)
    lines = [re.sub(r'^(- )?(Parser key "[\w.]+":)?\s*', "", line.strip()) for line in message.splitlines()]
    text = "; ".join(line for line in lines if line and not line.startswith(NOISE))
    if "required: fit." in text:
        return "no recipe: give one with --config recipes/X.yaml"
    if refused := re.search(r"does not accept option '([\w.]+)'|Option '([\w.]+)' is not accepted", text):
        path = ".".join(part for part in (path, refused[1] or refused[2]) if part)
        of = f" in {classes[-1]}" if classes else " in a recipe"
        return f"{path}: there is no such key{of}"
    text = re.sub(r"Expected a <class '(\w+)'>", r"expected \1", text) or " ".join(lines)
    text = re.sub(r"^(No action|Unexpected import path format)", r"expected a class_path: \1", text)
    return f"{path}: {text}" if path else text

"""The model card that lies in every export."""

from typing import Any

LISTED = 20  # entries of a list that the card spells out


def card(config: dict[str, Any], parameters: int) -> str:
    """The text of the card's `README.md`.

    Args:
        config: The content of `config.json`.
        parameters: Number of parameters.
    """
    architecture, provenance = config["architecture"], config["provenance"]
    t, h, w = config["grid"]
    size = config["image_size"]
    metrics = _bullets(provenance.get("metrics") or {})
    arguments = ", ".join(f"{key}={value}" for key, value in architecture["args"].items())
    return f"""# {provenance.get("recipe") or provenance.get("run") or "Encoder"}

A frozen image encoder, pretrained without labels by `jepa_pretrain`.

## Load it

```python
from jepa_pretrain import FrozenEncoder
encoder = FrozenEncoder.load("path/to/this/folder")
tokens = encoder(images)  # (B, 3, {size}, {size}) uint8, or float in 0..1 -> (B, {t * h * w}, {config["width"]})
```

The encoder normalises its input itself.
Tokens lie on a grid of {t} x {h} x {w}; average them for one feature per image.

## What it is

- Architecture: `{architecture["class"]}({arguments})`, {parameters:,} parameters.
- Weights: `model.safetensors`; everything else that is known: `config.json`.

## How it was trained

{_bullets(provenance, without=("metrics", "versions"))}

## Numbers known

{metrics or "None were recorded at the time of export; run `jepa-pretrain eval linear`."}

Written with: {", ".join(f"{name} {number}" for name, number in provenance["versions"].items())}.
"""


def _bullets(entries: dict[str, Any], without: tuple[str, ...] = (), indent: str = "") -> str:
    """A list of what is known, dictionaries as lists inside it."""
    lines = []
    for key, value in entries.items():
        if isinstance(value, dict) and key not in without:
            lines += [f"{indent}- {key}:", _bullets(value, indent=indent + "  ")]
        elif key not in without:
            lines.append(f"{indent}- {key}: {_short(value)}")
    return "\n".join(lines)


def _short(value: object) -> str:
    """A value on one line; of a long list only its length."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) if len(value) <= LISTED else f"{len(value)}, listed in `config.json`"
    return f"{value:.4g}" if isinstance(value, float) else str(value)

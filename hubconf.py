"""`torch.hub.load("OWNER/REPOSITORY", "encoder", path)`: a frozen encoder without installing this package."""

dependencies = ["torch", "timm", "safetensors", "rich", "numpy", "PIL"]


def encoder(path: str, image_size: int | None = None):
    """A frozen encoder.

    Args:
        path: What `FrozenEncoder.load` takes: an exported folder, a checkpoint of ours or Meta's, `timm:NAME`, ...
        image_size: Input size, pixels; its own by default.
    """
    from jepa_pretrain import FrozenEncoder

    return FrozenEncoder.load(path, image_size)


def action_world(path: str):
    """V-JEPA 2-AC as a world model: encoder and action-conditioned predictor.

    Args:
        path: Meta's file, with options as in `FrozenEncoder.load`.
    """
    from jepa_pretrain.interop.action_world import load_action_world

    return load_action_world(path)

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

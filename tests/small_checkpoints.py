"""Checkpoints as a run leaves them, without the run."""

import torch


def save_checkpoint(path, encoder, **changes):
    """A checkpoint as `Method.on_save_checkpoint` leaves it, the online encoder beside its target."""
    weights = {f"target.module.{name}": tensor for name, tensor in encoder.state_dict().items()}
    weights |= {f"encoder.{name}": torch.zeros_like(tensor) for name, tensor in encoder.state_dict().items()}
    entry = {
        "prefix": "target.module.",
        "config": {"class": "ViT", "args": encoder.config},
        "provenance": {"recipe": "ijepa_demo", "step": 12, "metrics": {"probe/knn_top1": 0.4}},
    }
    torch.save({"state_dict": weights, "export": entry} | changes, path)
    return path

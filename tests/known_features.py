"""Features with known structure, and shards of known pictures."""

import io
import tarfile

import numpy as np
import torch
from PIL import Image

from jepa_pretrain.evals.features import Features


def clusters(n, classes=5, width=16, extra=8, noise=0.5, seed=0):
    """Separable classes in the last layer; the layer before it is noise."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    label = torch.arange(n) % classes
    last = centres[label] + noise * torch.randn(n, width, generator=rng)
    return Features(torch.cat([torch.randn(n, extra, generator=rng), last], dim=1), width, label)


def write_shard(path, count=24, size=16, classes=2, labels=True, seed=0):
    """Pictures of two kinds, dark and bright, as a plain tar shard."""
    rng = np.random.default_rng(seed)
    with tarfile.open(path, "w") as tar:
        for i in range(count):
            label = i % classes
            pixels = (rng.random((size, size, 3)) * 80 + 120 * label).astype(np.uint8)
            picture = io.BytesIO()
            Image.fromarray(pixels).save(picture, "png")
            members = {"png": picture.getvalue()} | ({"cls": str(label).encode()} if labels else {})
            for extension, content in members.items():
                info = tarfile.TarInfo(f"s{i:04d}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return str(path)

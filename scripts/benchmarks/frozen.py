"""Batches per second of `FrozenEncoder` beside timm's and transformers' modules with the same weights, in one run.

    python scripts/benchmarks/frozen.py --device cpu --dtype float32 --batch 4 --rounds 5
    python scripts/benchmarks/frozen.py --only ViT-S/16 --dtype bfloat16 --batch 1 --depth 2 --attention both

The sides take turns, so that a busy machine slows all of them alike; what is printed is the median over rounds of
ours / theirs in batches per second: 1 or more is as quick or quicker. Ours normalises uint8 pixels itself and the
others are given pixels that are normalised already. On a CPU it is the process's own time that is measured.
transformers' ResNet has weights of its own, of the same shapes. `--attention both` adds ours with attention as plain
matrix products.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from jepa_pretrain import FrozenEncoder
from jepa_pretrain.interop.export import write
from jepa_pretrain.interop.to_timm import write_timm
from jepa_pretrain.interop.to_transformers import write_transformers
from jepa_pretrain.models.rotary_vit import TiledRotaryViT
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT, use_plain_attention

Side = Callable[[], Tensor]


def encoders(size: int, depth: int) -> dict[str, nn.Module]:
    """Encoders of common widths."""
    return {
        "ViT-S/16": ViT(image_size=size, patch=16, width=384, depth=depth, heads=6),
        "V-JEPA 2 S/16": TiledRotaryViT(
            image_size=size, patch=16, width=384, depth=depth, heads=6, frames=4, tubelet=2
        ),
        "ResNet-50": TimmEncoder("resnet50", image_size=size),
    }


def sides(encoder: nn.Module, folder: Path, asked: argparse.Namespace) -> dict[str, Side]:
    """One call for each library, on the same pictures, with the same weights, each opened from its own folder."""
    device, dtype = torch.device(asked.device), getattr(torch, asked.dtype)
    frozen = FrozenEncoder.load(write(encoder, folder / "ours", {})).to(device)
    frames = encoder.config.get("frames", 1)
    pixels = torch.randint(
        0, 256, (asked.batch, 3, frames, *[encoder.image_size] * 2), dtype=torch.uint8, device=device
    )
    normed = frozen.encoder.normalise(pixels)
    found: dict[str, Side] = {"ours": lambda: frozen(pixels)}
    if frames == 1:
        write_timm(encoder, folder / "timm")
        model = timm.create_model(f"local-dir:{folder}/timm", pretrained=True, num_classes=0, global_pool="")
        model, image = model.eval().to(device), normed[:, :, 0].contiguous()
        found["timm"] = lambda: model.forward_features(image)
    if asked.attention == "both" and not isinstance(encoder, TimmEncoder):
        spelled = copy.deepcopy(frozen)
        use_plain_attention(spelled)
        found["plain"] = lambda: spelled(pixels)
    found["transformers"] = _transformers(encoder, folder, normed)
    return {name: _under(side, device, dtype) for name, side in found.items()}


def _transformers(encoder: nn.Module, folder: Path, normed: Tensor) -> Side:
    from transformers import AutoModel, ResNetConfig, ResNetModel

    if isinstance(encoder, TimmEncoder):
        resnet = ResNetModel(ResNetConfig(layer_type="bottleneck", depths=[3, 4, 6, 3])).eval().to(normed.device)
        image = normed[:, :, 0].contiguous()
        return lambda: resnet(image).last_hidden_state
    write_transformers(encoder, None, folder / "transformers")
    theirs = AutoModel.from_pretrained(folder / "transformers").eval().to(normed.device)
    if normed.shape[2] == 1:
        return lambda: theirs(normed[:, :, 0]).last_hidden_state
    return lambda: theirs.get_vision_features(normed.transpose(1, 2))


def _under(side: Side, device: torch.device, dtype: torch.dtype) -> Side:
    def call() -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            return side()

    return call


def seconds(side: Side, device: str) -> float:
    """Seconds of one batch: on a CPU the process's own."""
    if device != "cpu":
        torch.cuda.synchronize()
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    side()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="one of the encoders")
    parser.add_argument("--attention", default="fused", choices=("fused", "both"))
    asked = parser.parse_args()
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {asked.device}, {asked.dtype}, batch {asked.batch}, {asked.rounds} rounds")
    made = encoders(asked.size, asked.depth)
    for name, encoder in made.items() if asked.only is None else [(asked.only, made[asked.only])]:
        with tempfile.TemporaryDirectory() as folder:
            calls = sides(encoder, Path(folder), asked)
            for call in calls.values():
                call()  # warm up
            times = {side: [] for side in calls}
            for _ in range(asked.rounds):
                for side, call in calls.items():
                    times[side].append(seconds(call, asked.device))
        rate = {side: 1 / statistics.median(took) for side, took in times.items()}
        for side in [one for one in calls if one != "ours"]:
            ratio = statistics.median(b / a for a, b in zip(times["ours"], times[side], strict=True))
            print(f"{name:<14} ours {rate['ours']:.2f}/s, {side} {rate[side]:.2f}/s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()

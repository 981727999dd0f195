"""Trains a peer package's method on CIFAR-10 shards for a given time and stores its frozen features.

    python scripts/benchmarks/peers_cifar10.py lightly-vicreg --seconds 3600 \
        --data 'DATA/cifar10/{split}-*.tar.gz' --out runs/peers/lightly-vicreg

It needs `pip install lightly stable-pretraining` beside this package; what is trained, and whose hyper-parameters,
stands in `peers_methods.py`. The time of a step is measured on a throwaway copy first, so that the schedule ends with
the time; `--steps` fixes the number instead (a run is then a function of its seed), and `--seconds 0` stores the
untrained encoder. All pictures lie decoded in memory, and everything runs in fp32.

It writes `result.json`, `losses.csv`, the weights as `model.pt` (a state dict) and, for each encoder of the method,
`ENCODER/train.safetensors` and `ENCODER/test.safetensors`: `features` `(N, D)` (last layer, pooled), `layers`
`(N, D_1 + ... + D)` (last four layers or stages, pooled, side by side) and `label` `(N,)`. `probe_features.py ENCODER`
then measures them with this package's own probes.
"""

import argparse
import copy
import csv
import json
import platform
import statistics
import tarfile
import time
from collections import defaultdict
from collections.abc import Iterator
from glob import glob
from importlib.metadata import version
from pathlib import Path

import torch
from peers_methods import PEERS, Peer, Size
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

MEASURED = 20  # steps timed before the run, after two that warm up
PATIENCE = 1.25  # a run that takes this many times its seconds is stopped, and says so


class Pictures(Dataset):
    """Decoded pictures in memory, seen through a view."""

    def __init__(self, pattern: str, view) -> None:
        self.view = view
        self.samples = list(read_shards(pattern))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int):
        picture, label = self.samples[index]
        return self.view(picture), label


def read_shards(pattern: str) -> Iterator[tuple[Image.Image, int]]:
    """Yields decoded picture and label of every sample of the shards that match."""
    shards = sorted(glob(pattern))
    if not shards:
        raise SystemExit(f"no shards match {pattern}")
    for shard in shards:
        pictures, labels = {}, {}
        with tarfile.open(shard) as archive:
            for member in archive:
                key, extension = member.name.split(".", 1)
                if extension == "cls":
                    labels[key] = int(archive.extractfile(member).read())
                else:
                    pictures[key] = Image.open(archive.extractfile(member)).convert("RGB")
        yield from ((picture, labels[key]) for key, picture in pictures.items())


def endless(data: Dataset, batch_size: int, workers: int, seed: int) -> Iterator[list[Tensor]]:
    """Batches of views for ever, in an order drawn from the seed."""
    order = torch.Generator().manual_seed(seed)
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    loader = DataLoader(data, batch_size, shuffle=True, drop_last=True, generator=order, **options)
    while True:
        for views, _ in loader:
            yield views


def step(peer: Peer, views: list[Tensor], optimiser: torch.optim.Optimizer, at: int, steps: int) -> float:
    """One optimiser step; returns the loss."""
    loss = peer.loss(views)
    optimiser.zero_grad()
    loss.backward()
    peer.after_backward(at, steps)
    optimiser.step()
    return loss.item()


def seconds_per_step(peer: Peer, batches: Iterator[list[Tensor]]) -> float:
    """Median time of a step, loading included, measured on a copy that is thrown away."""
    trial = copy.deepcopy(peer)
    optimiser, _ = trial.optimisation(1000)
    times = []
    for at in range(2 + MEASURED):
        start = time.perf_counter()
        step(trial, next(batches), optimiser, at, 1000)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def train(peer: Peer, batches: Iterator[list[Tensor]], steps: int, limit: float) -> tuple[list[float], float]:
    """Trains for `steps` steps or until `limit` seconds have passed; returns losses and seconds."""
    peer.model.train()
    optimiser, schedule = peer.optimisation(steps)
    losses, start = [], time.perf_counter()
    for at in range(steps):
        losses.append(step(peer, next(batches), optimiser, at, steps))
        schedule.step()
        elapsed = time.perf_counter() - start
        if at % max(1, steps // 50) == 0:
            print(f"step {at + 1}/{steps}  loss {losses[-1]:.4f}  {elapsed:.0f} s", flush=True)
        if elapsed > limit:
            break
    return losses, time.perf_counter() - start


@torch.inference_mode()
def store_features(peer: Peer, pattern: str, out: Path) -> None:
    """Writes the pooled features of both splits for every encoder of the method."""
    peer.model.eval()
    for split, name in (("train", "train"), ("val", "test")):
        rows, labels = defaultdict(list), []
        for images, label in DataLoader(Pictures(pattern.format(split=split), peer.eval_view()), batch_size=250):
            labels.append(label)
            for encoder, layers in peer.features(images).items():
                rows[encoder].append(layers)
        for encoder, found in rows.items():
            last, layers = (torch.cat(column) for column in zip(*found, strict=True))
            (out / encoder).mkdir(parents=True, exist_ok=True)
            tensors = {"features": last, "layers": layers, "label": torch.cat(labels)}
            save_file(tensors, out / encoder / f"{name}.safetensors")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=PEERS)
    parser.add_argument("--data", required=True, help="shards as a glob with {split} for train and val")
    parser.add_argument("--probe-data", help="shards whose features are stored, when not all of them (same form)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3600, help="training time; 0 stores the untrained encoder")
    parser.add_argument("--steps", type=int, help="fixes the number of steps instead of measuring it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, help="instead of the published batch size; lightly's lr scales with it")
    parser.add_argument("--width", type=int, default=192, help="of the ViT")
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--patch", type=int, default=4)
    parser.add_argument("--predictor-depth", type=int, default=6)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    peer = PEERS[args.method](Size(args.width, args.depth, args.heads, args.patch, args.predictor_depth, args.batch))
    data = Pictures(args.data.format(split="train"), peer.views)
    batches = endless(data, peer.batch_size, args.workers, args.seed)
    steps = 0 if args.seconds == 0 else args.steps
    if steps is None:
        steps = max(1, round(args.seconds / seconds_per_step(peer, batches)))
    print(f"{args.method}: {steps} steps of {peer.batch_size} pictures", flush=True)
    limit = float("inf") if args.steps else PATIENCE * args.seconds
    losses, seconds = train(peer, batches, steps, limit)
    torch.save(peer.model.state_dict(), args.out / "model.pt")
    with open(args.out / "losses.csv", "w", newline="") as file:
        csv.writer(file).writerows([("step", "loss"), *enumerate(losses, start=1)])
    result = json.dumps(summary(args, peer, losses, seconds, steps), indent=2)
    (args.out / "result.json").write_text(result + "\n")
    print(result, flush=True)
    store_features(peer, args.probe_data or args.data, args.out)


def summary(args: argparse.Namespace, peer: Peer, losses: list[float], seconds: float, steps: int) -> dict:
    """What ran, how far and how fast."""
    images = len(losses) * peer.batch_size
    return {
        "method": args.method,
        "settings": {key: value for key, value in vars(args).items() if key not in ("data", "probe_data", "out")},
        "batch_size": peer.batch_size,
        "parameters": sum(p.numel() for p in peer.model.parameters() if p.requires_grad),
        "steps": len(losses),
        "schedule_finished": len(losses) == steps,
        "images": images,
        "seconds": round(seconds, 1),
        "images_per_second": round(images / seconds, 1) if losses else None,
        "loss_mean_of_last_20": statistics.fmean(losses[-20:]) if losses else None,
        "versions": {name: version(name) for name in ("torch", "timm", "lightly", "stable-pretraining")},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {torch.get_default_dtype()}",
    }


if __name__ == "__main__":
    main()

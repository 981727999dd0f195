"""This package's linear probe and k-NN on stored features, so that peers are measured exactly as our own encoders are.

    python scripts/benchmarks/probe_features.py runs/peers/lightly-vicreg/encoder

It reads `train.safetensors` and `test.safetensors` as `peers_cifar10.py` writes them, and writes `linear.json` and
`knn.json` beside them. Sweep, selection on train, and k are the defaults of `jepa-pretrain eval`.
"""

import argparse
import inspect
import json
from pathlib import Path

from safetensors.torch import load_file

from jepa_pretrain.evals import knn, linear
from jepa_pretrain.evals.features import Features
from jepa_pretrain.evals.interval import wilson


def read(path: Path) -> Features:
    """Stored features as the probes take them."""
    stored = load_file(path)
    last, layers = stored["features"], stored["layers"]
    if not last.equal(layers[:, -last.shape[1] :]):
        raise SystemExit(f"{path}: the last columns of `layers` are not `features`")
    return Features(layers, last.shape[1], stored["label"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    train, test = read(folder / "train.safetensors"), read(folder / "test.safetensors")
    defaults = {name: value.default for name, value in inspect.signature(knn.knn).parameters.items()}
    neighbours = knn.classify(train, test, defaults["k"], defaults["temperature"])
    probe = linear.probe(train, test, linear.Sweep())
    n = len(test.label)
    for name, found, hits in (
        ("knn", neighbours, neighbours["hits"]),
        ("linear", probe, round(probe["top1_share"] * n)),
    ):
        outcome = {"top1": 100 * hits / n, "interval": [100 * bound for bound in wilson(hits, n)], "test_samples": n}
        (folder / f"{name}.json").write_text(json.dumps(outcome | found, indent=2) + "\n")
        low, high = outcome["interval"]
        print(f"{folder}  {name:6}  {outcome['top1']:.2f} %  (95 % interval {low:.2f} to {high:.2f})", flush=True)


if __name__ == "__main__":
    main()

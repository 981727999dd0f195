"""A fault on one rank of two is skipped by both, and the file names the batches of both."""

import json

import lightning
import pytest
import torch
from faulty import Faulty, Pixels, shards, train, vicreg

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed"),
]


class Weights(lightning.Callback):
    """Writes down, of each rank, the sum of the weights at the end of every step, and all of it at the end."""

    def __init__(self, folder):
        self.folder, self.sums = folder, []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.sums.append(sum(p.double().sum().item() for p in module.parameters()))

    def on_train_end(self, trainer, module):
        torch.save({"sums": self.sums, "weights": module.state_dict()}, self.folder / f"{trainer.global_rank}.pt")


@pytest.mark.parametrize("fault", ["loss", "pixels"])
def test_both_ranks_skip(fault, demo_shards, tmp_path):
    objective = Faulty("loss", first=2, rank=1) if fault == "loss" else None
    extra = [Pixels(2, rank=1)] if fault == "pixels" else []
    two = {"strategy": "ddp_fork", "devices": 2}
    train(vicreg(objective), shards(demo_shards), tmp_path, 4, Weights(tmp_path), *extra, **two)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for found in ranks:
        sums = found["sums"]
        assert sums[2] == sums[1] and sums[1] != sums[0] and sums[3] != sums[2]
        assert all(tensor.isfinite().all() for tensor in found["weights"].values())
    for name, tensor in ranks[0]["weights"].items():
        assert "running" in name or torch.equal(tensor, ranks[1]["weights"][name]), name
    path = tmp_path / "faults" / "step-00000002.json"
    told = json.loads(path.read_text())["ranks"]
    assert [one["loss"] == "nan" for (one,) in told] == ([False, True] if fault == "loss" else [True, True])
    assert not set(told[0][0]["keys"]) & set(told[1][0]["keys"])
    assert len((tmp_path / "alarms.jsonl").read_text().splitlines()) == 1

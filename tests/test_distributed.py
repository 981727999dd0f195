"""Two processes equal one on the joined batch: loss and gradients, after DDP's averaging."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from jepa_pretrain import distributed
from jepa_pretrain.objectives.vicreg import VICRegLoss

WORLD = 2


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))


def inputs():
    rng = torch.Generator().manual_seed(1)
    return torch.randn(2, 8, 6, generator=rng)  # (V, B, features)


def step(model, views):
    loss, _ = VICRegLoss()([model(v) for v in views])
    loss.backward()
    return loss.detach()


def rank_main(rank, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    model = DistributedDataParallel(network())
    mine = inputs().chunk(WORLD, dim=1)[rank]
    loss = distributed.mean(step(model, mine))
    if rank == 0:
        torch.save({"loss": loss, "grads": [p.grad for p in model.parameters()]}, f"{folder}/result.pt")
    dist.destroy_process_group()


def test_without_processes_everything_is_the_identity():
    x = torch.randn(3, 2)
    assert distributed.world_size() == 1
    assert distributed.gather(x) is x and distributed.total(x) is x and torch.equal(distributed.mean(x), x)


@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
def test_vicreg_on_two_ranks_equals_one_on_the_joined_batch(tmp_path):
    mp.spawn(rank_main, (str(tmp_path),), nprocs=WORLD)
    two = torch.load(tmp_path / "result.pt", weights_only=True)
    model = network()
    loss = step(model, inputs())
    # the invariance term is a mean over the rank's own samples: averaged over ranks it is the joined one
    torch.testing.assert_close(two["loss"], loss, rtol=1e-5, atol=1e-6)
    for got, p in zip(two["grads"], model.parameters(), strict=True):
        torch.testing.assert_close(got, p.grad, rtol=1e-4, atol=1e-6)

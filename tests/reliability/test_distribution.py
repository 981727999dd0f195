"""Two and four ranks do what one process does on the joined batch: every sample, loss, gradient, weight and metric."""

from types import SimpleNamespace

import pytest
import small_run
import torch
from ranks import together
from small_shards import numbered, write_tar

from jepa_pretrain.data.moving import moving
from jepa_pretrain.data.shards import Shards
from jepa_pretrain.data.views import CentreCrop

# In double precision, so that nothing but a wrong formula can differ; the largest found is told in docs/reliability.md.
TIGHT = dict(rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("sizes", [(13, 1, 7, 2), (21,), (3, 17)])
def test_one_pass_sees_every_sample_once(sizes, world, tmp_path):
    """Unequal shards, and fewer shards than ranks; training leaves out the tail that fills no global batch."""
    start = 0
    for shard, size in enumerate(sizes):
        write_tar(tmp_path / f"{shard}.tar", numbered(start, size))
        start += size
    trained, validated = [], []
    for rank in range(world):
        data = Shards(str(tmp_path / "*.tar"), [CentreCrop(16)], str(tmp_path / "*.tar"), batch_size=2, workers=0)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world, current_epoch=0)
        trained.append([key for batch in data.train_dataloader() for key in batch.key])
        validated.append([key for batch in data.val_dataloader() for key in batch.key])
    total, everything = sum(sizes), sorted(key for keys in validated for key in keys)
    assert len(everything) == len(set(everything)) == total
    seen = [key for keys in trained for key in keys]
    assert len(seen) == len(set(seen)) == total // (2 * world) * 2 * world and set(seen) <= set(everything)
    assert len({len(keys) for keys in trained}) == 1


@pytest.fixture(scope="module")
def alone(demo_shards, tmp_path_factory):
    """The run of one process, per kind, once."""
    known = {}

    def run(kind, **options):
        key = (kind, *sorted(options.items()))
        if key not in known:
            known[key] = together(str(tmp_path_factory.mktemp("alone")), fit, 1, str(demo_shards), kind, options)[0]
        return known[key]

    return run


def fit(rank, world, folder, kind, options):
    return small_run.fit(rank, world, folder, kind, **options)


def assert_same(got, expected, **tolerance):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, **tolerance, msg=lambda words, name=name: f"{name}: {words}")


def assert_same_run(ranks, one, **tolerance):
    for got in ranks:
        assert got["step"] == one["step"] == len(one["gradients"])
        for mine, theirs in zip(got["gradients"], one["gradients"], strict=True):
            assert_same(mine, theirs, **tolerance)
        assert_same(got["weights"], one["weights"], **tolerance)


@pytest.mark.parametrize("kind, world", [("ijepa", 2), ("regularized", 4), ("vicreg", 2), ("vicreg", 4)])
def test_ranks_do_what_one_process_does(kind, world, alone, demo_shards, tmp_path):
    one, ranks = alone(kind), together(str(tmp_path), fit, world, str(demo_shards), kind, {})
    assert_same_run(ranks, one, **TIGHT)
    for got in ranks:
        for mine, theirs in zip(got["logged"], one["logged"], strict=True):
            assert_same(mine, theirs, rtol=1e-5, atol=1e-6)  # logged in fp32
        assert {name for name in got["metrics"] if name.startswith("probe/")} == {"probe/linear_top1", "probe/knn_top1"}
        assert got["metrics"] == pytest.approx(one["metrics"], rel=1e-5)
    assert sorted(key for got in ranks for key in got["read"]) == sorted(one["read"])
    assert len(set(one["read"])) == 96
    validated = [key for got in ranks for key in got["validated"]]
    assert len(set(validated)) == 40 and sorted(validated) == sorted(one["validated"])


def test_two_ranks_do_what_one_does_with_all_options_of_vjepa(tmp_path):
    """Tubes through time in two sizes, several depths, the loss on visible tokens, on clips of moving shapes."""
    moving(str(tmp_path / "clips"), train=64, val=32, size=16, frames=8)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    runs = [
        together(str(folder), fit, world, str(tmp_path / "clips"), "vjepa", {"steps": 2})
        for world, folder in enumerate(folders, start=1)
    ]
    (one,), ranks = runs
    assert_same_run(ranks, one, **TIGHT)
    assert {"train/visible", "train/regularizer"} <= one["logged"][0].keys()
    assert sorted(key for got in ranks for key in got["read"]) == sorted(one["read"])


def test_two_batches_in_turn_are_one_step_of_the_joined_batch(alone, demo_shards, tmp_path):
    """I-JEPA alone has no statistics over samples; masks are drawn per batch that is read, so here they are fixed."""
    one, turns = alone("same masks"), alone("same masks", accumulate=2)
    ranks = together(str(tmp_path), fit, 2, str(demo_shards), "same masks", {})
    assert_same_run([turns, *ranks], one, **TIGHT)
    ranks_in_turn = together(str(tmp_path), fit, 2, str(demo_shards), "same masks", {"accumulate": 2})
    assert_same_run(ranks_in_turn, one, **TIGHT)
    for got in (one, turns, *ranks, *ranks_in_turn):  # the target follows once a step, with that step's momentum
        assert got["followed"] == [(0, 0.0), (1, 1 / 3), (2, 2 / 3)]


@pytest.mark.parametrize("strategy, kind", [("ddp", "vicreg"), ("fsdp2", "ijepa")])
def test_two_ranks_that_stop_and_go_on_end_where_one_process_does(strategy, kind, alone, demo_shards, tmp_path):
    """After step 2 of 3; every rank holds the right probe, bank and latest features again."""
    one, kept = alone(kind), str(tmp_path / "kept.ckpt")
    together(str(tmp_path), fit, 2, str(demo_shards), kind, {"strategy": strategy, "stop": 2, "keep": kept})
    ranks = together(str(tmp_path), fit, 2, str(demo_shards), kind, {"strategy": strategy, "resume": kept})
    for got in ranks:
        assert_same(got["weights"], one["weights"], **TIGHT)
        assert got["metrics"] == pytest.approx(one["metrics"], rel=1e-5)
        probe, knn, collapse = got["watchers"]
        assert_same(probe["head"], one["watchers"][0]["head"], rtol=1e-4, atol=1e-5)
        for mine, theirs in zip(knn["bank"], one["watchers"][1]["bank"], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(collapse["latest"], one["watchers"][2]["latest"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["regularized", "vicreg"])
def test_fsdp2_trains_what_one_process_does(kind, alone, demo_shards, tmp_path):
    options = {"strategy": "fsdp2", "clip": 0.3}  # a bound that is met: norms are those of the whole gradient
    ranks = together(str(tmp_path), fit, 2, str(demo_shards), kind, options)
    assert_same_run(ranks, alone(kind, clip=0.3), **TIGHT)
    assert all(got["split"] for got in ranks)

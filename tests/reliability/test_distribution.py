"""Two and four ranks do what one process does on the joined batch: every sample, loss, gradient, weight and metric."""

import pytest
import small_run
import torch
from ranks import together

# In double precision, so that nothing but a wrong formula can differ; the largest found is told in docs/reliability.md.
TIGHT = dict(rtol=1e-10, atol=1e-12)
KINDS = ["ijepa", "regularized", "vicreg"]


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


@pytest.mark.parametrize("kind, world", [(kind, 2) for kind in KINDS] + [("vicreg", 4), ("regularized", 4)])
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

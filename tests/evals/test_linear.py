import json

import pytest
import torch
from known_features import clusters, write_shard

from jepa_pretrain.contracts import UserError
from jepa_pretrain.evals import linear as module
from jepa_pretrain.evals.linear import Sweep, linear, probe, select
from jepa_pretrain.evals.reader import Reader

SHORT = Sweep(epochs=10, batch_size=64, lr=(1.0, 10.0), weight_decay=(0.0, 1e-4))


def test_separable_classes_are_found():
    found = probe(clusters(400, seed=0), clusters(200, seed=1), SHORT)
    assert found["top1_share"] > 0.97
    assert len(found["heads"]) == 2 * 2 * 2 * 2


def test_shuffled_labels_give_chance():
    train, test = clusters(400, seed=0), clusters(500, seed=1)
    shuffled = train._replace(label=train.label[torch.randperm(400, generator=torch.Generator().manual_seed(0))])
    assert probe(shuffled, test, SHORT)["top1_share"] == pytest.approx(0.2, abs=0.13)


def test_what_only_an_older_layer_knows_is_found_in_the_last_four():
    train, test = clusters(400, seed=0), clusters(200, seed=1)
    swapped = [f._replace(layers=f.layers.flip(1), width=8) for f in (train, test)]  # structure first, noise last
    found = probe(*swapped, SHORT)
    assert found["chosen"]["layers"] == "last four" and found["top1_share"] > 0.97


def test_selection_never_sees_the_test_set():
    train, test = clusters(300, noise=3.0, seed=0), clusters(200, noise=3.0, seed=1)
    permuted = test._replace(label=test.label.roll(1))
    ours, theirs = probe(train, test, SHORT), probe(train, permuted, SHORT)
    assert ours["chosen"] == theirs["chosen"] and ours["heads"] == theirs["heads"]
    assert ours["top1_share"] != theirs["top1_share"]


def test_held_out_samples_are_not_trained_on():
    """With pure noise and more dimensions than samples, training accuracy is 1 and held-out accuracy chance."""
    rng = torch.Generator().manual_seed(0)
    noise = clusters(400)._replace(layers=torch.randn(400, 500, generator=rng), width=500)
    best = max(score for _, score in select(noise, 5, SHORT))
    assert best < 0.5


def test_a_best_learning_rate_at_the_edge_of_the_sweep_is_told():
    def scored(*scores):
        return [
            (module.Head("last", False, lr, 0.0), score) for lr, score in zip((0.1, 1.0, 10.0), scores, strict=True)
        ]

    assert module.at_edge(scored(0.1, 0.2, 0.3)) and module.at_edge(scored(0.3, 0.2, 0.1))
    assert not module.at_edge(scored(0.1, 0.3, 0.2)) and not module.at_edge(scored(0.1, 0.3, 0.3))
    assert not module.at_edge(scored(0.1, 0.2, 0.3)[:2])  # nothing lies between the edges


def test_only_one_layer_makes_no_second_representation():
    data = clusters(100, extra=0)
    assert {head.layers for head, _ in select(data, 5, SHORT)} == {"last"}


def test_command_writes_a_table_and_json(tmp_path, capsys):
    train, test = write_shard(tmp_path / "a.tar", seed=0), write_shard(tmp_path / "b.tar", 20, seed=1)
    linear(
        "pixels",
        train,
        test,
        str(tmp_path / "eval" / "r.json"),
        epochs=5,
        reader=Reader(workers=0, cache=str(tmp_path / "c")),
    )
    outcome = json.loads((tmp_path / "eval" / "r.json").read_text())
    assert outcome["top1"] == 100 and outcome["test_samples"] == 20 and outcome["train_samples"] == 24
    low, high = outcome["interval"]
    assert low < 100 and high == 100
    assert len(outcome["heads"]) == 2 * len(Sweep().lr) * len(Sweep().weight_decay)
    assert outcome["chosen_val"] == max(head["val_top1"] for head in outcome["heads"])
    printed = capsys.readouterr().out
    table = [line for line in printed.splitlines() if line[:1] in "┌│└"]
    assert "100.00 %" in printed and len(table) > 5 and max(map(len, table)) <= 80


def test_shots_keep_so_many_of_each_class(tmp_path):
    train, test = write_shard(tmp_path / "a.tar", 40), write_shard(tmp_path / "b.tar", 20, seed=1)
    linear(
        "pixels",
        train,
        test,
        f"{tmp_path}/eval/",
        shots=3,
        epochs=5,
        reader=Reader(workers=0, cache=str(tmp_path / "c")),
    )
    assert json.loads((tmp_path / "eval" / "linear-pixels.json").read_text())["train_samples"] == 6
    with pytest.raises(UserError, match="fewer than shots = 21"):
        linear("pixels", train, test, shots=21, reader=Reader(workers=0, cache=str(tmp_path / "c")))


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ({"labels": False}, {}, "train shards hold no labels"),
        ({}, {"labels": False}, "test shards hold no labels"),
        ({"classes": 1}, {"classes": 1}, "at least two classes"),
        ({"count": 3}, {}, "a single training sample"),
        ({}, {"classes": 3}, r"classes \[2\] that train lacks"),
    ],
)
def test_labels_no_probe_can_use(tmp_path, train, test, message):
    shards = write_shard(tmp_path / "a.tar", **train), write_shard(tmp_path / "b.tar", seed=1, **test)
    with pytest.raises(UserError, match=message):
        linear("pixels", *shards, epochs=1, reader=Reader(workers=0, cache=str(tmp_path / "c")))


def test_impossible_settings(tmp_path):
    with pytest.raises(UserError, match="lr needs"):
        linear("pixels", "a", "b", lr=())
    with pytest.raises(UserError, match="epochs"):
        linear("pixels", "a", "b", epochs=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        linear("pixels", "a", "b", out=str(tmp_path / "file" / "r.json"))
    with pytest.raises(UserError, match="no device"):
        Reader(device="abacus")


def test_head_says_what_it_is():
    assert str(module.Head("last four", True, 3.0, 1e-4)) == "last four layers, batch norm + linear, lr 3, wd 0.0001"

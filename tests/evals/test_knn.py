import json
import math

import pytest
import torch
from known_features import clusters, write_shard

from jepa_pretrain.contracts import UserError
from jepa_pretrain.evals import knn as module
from jepa_pretrain.evals.knn import classify, knn, votes
from jepa_pretrain.evals.reader import Reader


def brute_force(query, bank, values, k, temperature, skip=None):
    """Section 3.4 of the paper, one query and one neighbour at a time."""
    similar = []
    for i, key in enumerate(bank):
        if i != skip:
            cosine = sum(a * b for a, b in zip(query, key, strict=True)) / (math.hypot(*query) * math.hypot(*key))
            similar.append((cosine, values[i]))
    scores = {}
    for cosine, value in sorted(similar, reverse=True)[:k]:
        scores[value] = scores.get(value, 0.0) + math.exp(cosine / temperature)
    return max(scores, key=scores.get)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_against_brute_force(k, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7 * 60)  # 60 in the bank: several chunks, the last one short
    train, test = clusters(60, noise=2.0, seed=0), clusters(40, noise=2.0, seed=1)
    bank = torch.nn.functional.normalize(train.last, dim=1)
    guesses = [brute_force(q, train.last.tolist(), train.label.tolist(), k, 0.07) for q in test.last.tolist()]
    expected = sum(g == y for g, y in zip(guesses, test.label.tolist(), strict=True))
    assert votes(test.last, test.label, bank, train.label, [k], 0.07)[k] == expected
    assert 0 < expected < 40

    own = [brute_force(q, train.last.tolist(), train.label.tolist(), k, 0.07, i) for i, q in enumerate(bank.tolist())]
    expected = sum(g == y for g, y in zip(own, train.label.tolist(), strict=True))
    assert votes(bank, train.label, bank, train.label, [k], 0.07, torch.arange(60))[k] == expected


def test_a_sample_does_not_vote_for_itself():
    rng = torch.Generator().manual_seed(0)
    noise = clusters(300)._replace(layers=torch.randn(300, 16, generator=rng))
    assert classify(noise, noise, (1,), 0.07)["train_top1"][1] < 40  # chance is 20; with itself it would be 100


def test_k_is_chosen_without_the_test_set():
    train, test = clusters(200, noise=2.0, seed=0), clusters(100, noise=2.0, seed=1)
    ours = classify(train, test, (1, 5, 20), 0.07)
    theirs = classify(train, test._replace(label=test.label.roll(1)), (1, 5, 20), 0.07)
    assert ours["k"] == theirs["k"] and ours["train_top1"] == theirs["train_top1"] and ours["hits"] != theirs["hits"]
    assert ours["train_top1"][ours["k"]] == max(ours["train_top1"].values())


def test_layers():
    train, test = (clusters(n, extra=64, noise=1.5, seed=n) for n in (200, 100))  # the older layers are noise
    assert classify(train, test, (5,), 0.07)["hits"] > classify(train, test, (5,), 0.07, all_layers=True)["hits"]


def test_k_that_exceeds_the_training_set():
    train, test = clusters(20), clusters(10, seed=1)
    assert set(classify(train, test, (1, 200), 0.07)["train_top1"]) == {1}
    with pytest.raises(UserError, match="exceeds the 20 training pictures"):
        classify(train, test, (20, 200), 0.07)


def test_command(tmp_path, capsys):
    train, test = write_shard(tmp_path / "a.tar", seed=0), write_shard(tmp_path / "b.tar", 20, seed=1)
    knn("pixels", train, test, str(tmp_path / "r.json"), k=(1, 5), reader=Reader(workers=0, cache=str(tmp_path / "c")))
    outcome = json.loads((tmp_path / "r.json").read_text())
    assert outcome["test_samples"] == 20 and outcome["top1"] == 5 * outcome["top1"] // 5 and outcome["k"] in (1, 5)
    assert "knn evaluation of pixels" in capsys.readouterr().out
    with pytest.raises(UserError, match="k needs"):
        knn("pixels", train, test, k=())

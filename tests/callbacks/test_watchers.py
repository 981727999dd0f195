"""The callbacks that watch: monitors warn when they should, probes learn and survive a checkpoint."""

import json
from types import SimpleNamespace

import pytest
import torch

from jepa_pretrain.callbacks.collapse import Collapse
from jepa_pretrain.callbacks.probes import OnlineKNN, OnlineProbe
from jepa_pretrain.callbacks.progress import Bar
from jepa_pretrain.contracts import Batch

WIDTH, CLASSES = 16, 4


class Module:
    """As much of a method as a watcher sees; keeps what is logged."""

    def __init__(self):
        self.exported, self.device, self.logged = SimpleNamespace(width=WIDTH), torch.device("cpu"), {}

    def log(self, name, value, **options):
        self.logged[name] = float(value)

    def log_dict(self, values, **options):
        for name, value in values.items():
            self.log(name, value)


def trainer(step=0, loggers=(), folder=None):
    return SimpleNamespace(
        default_root_dir=folder,
        global_step=step, loggers=list(loggers), sanity_checking=False, callback_metrics={},
        datamodule=SimpleNamespace(classes=list("abcd")),
    )  # fmt: skip


def labelled(count=64, seed=0, noise=0.3):
    """Features whose class is easy to see, and a batch with their labels."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.randint(0, CLASSES, (count,), generator=rng)
    centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(9))
    features = centres[label] + noise * torch.randn(count, WIDTH, generator=rng)
    return {"features": features, "label": label}, Batch([], [], label, [])


def train(watcher, steps=40, seed=0):
    module = Module()
    watcher.on_fit_start(trainer(), module)
    for step in range(steps):
        watcher.on_train_batch_end(trainer(step), module, *labelled(seed=seed + step), step)
    return module


def validate(watcher, module, outputs, batch):
    watcher.on_validation_epoch_start(trainer(), module)
    watcher.on_validation_batch_end(trainer(), module, outputs, batch, 0)
    watcher.on_validation_epoch_end(trainer(), module)
    return module.logged


@pytest.mark.parametrize("make, name", [(lambda: OnlineProbe(lr=0.03), "linear"), (OnlineKNN, "knn")])
def test_probes_learn_what_is_there_and_nothing_else(make, name):
    probe = make()
    module = train(probe)
    outputs, batch = labelled(400, seed=999)
    assert validate(probe, module, outputs, batch)[f"probe/{name}_top1"] > 95
    shuffled = batch._replace(label=batch.label[torch.randperm(400, generator=torch.Generator().manual_seed(3))])
    assert validate(probe, module, outputs, shuffled)[f"probe/{name}_top1"] < 45


@pytest.mark.parametrize("make, name", [(lambda: OnlineProbe(lr=0.03), "linear"), (OnlineKNN, "knn")])
def test_probes_survive_a_checkpoint(make, name):
    """Twenty steps, a checkpoint, twenty more: the same as forty."""
    whole, first, second = make(), make(), make()
    train(whole, 40)
    train(first, 20)
    second.load_state_dict(first.state_dict())
    module = Module()
    second.on_fit_start(trainer(), module)
    for step in range(20, 40):
        second.on_train_batch_end(trainer(step), module, *labelled(seed=step), step)
    outputs, batch = labelled(50, seed=999, noise=3.0)
    assert validate(second, module, outputs, batch) == validate(whole, Module(), outputs, batch)


def test_unlabelled_samples_are_left_out():
    probe = OnlineProbe()
    module = Module()
    probe.on_fit_start(trainer(), module)
    outputs, batch = labelled(8)
    unlabelled = outputs | {"label": torch.full((8,), -1)}
    probe.on_train_batch_end(trainer(), module, unlabelled, batch, 0)
    assert not probe.head[1].weight.abs().sum()
    assert "probe/linear_top1" not in validate(probe, module, outputs, batch._replace(label=torch.full((8,), -1)))


def watch(features, folder=None, steps=8):
    monitor = Collapse(every=1, samples=256, patience=3)
    module = Module()
    for step in range(1, steps + 1):
        monitor.on_train_batch_end(trainer(step, folder=folder), module, {"features": features(step)}, None, step)
    return module.logged


def test_collapse_warns_in_plain_words(tmp_path):
    with pytest.warns(UserWarning, match="features have collapsed: effective rank 1.0 of 16"):
        logged = watch(lambda step: torch.ones(32, WIDTH) + 1e-4 * torch.randn(32, 1), tmp_path)
    assert logged["train/rank"] < 1.1
    (line,) = map(json.loads, (tmp_path / "alarms.jsonl").read_text().splitlines())
    assert (line["step"], line["kind"]) == (2, "collapse") and "a variance term" in line["message"]
    with pytest.warns(UserWarning, match="collapsed"):  # many dimensions, all of them nearly constant
        watch(lambda step: 5 + 1e-3 * torch.randn(32, WIDTH), tmp_path)


def test_collapse_is_silent_on_healthy_features(recwarn):
    logged = watch(lambda step: torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(step)))
    assert 14 < logged["train/rank"] <= 16 and 0.9 < logged["train/std"] < 1.1
    assert not [w for w in recwarn if "collapsed" in str(w.message)]


def test_features_that_are_no_numbers_are_left_out():
    """One bad batch hides neither the rank of the others nor what the probes have learnt."""

    def spoilt(step):
        features = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(step))
        features[: 64 if step == 3 else 5, 2] = torch.nan
        return features

    assert 14 < watch(spoilt)["train/rank"] <= 16
    probe, knn, module = OnlineProbe(), OnlineKNN(), Module()
    outputs, batch = labelled(64)
    outputs["features"][3:60] = torch.inf
    probe.on_fit_start(trainer(), module)
    for one in (probe, knn):
        one.on_train_batch_end(trainer(), module, outputs, batch, 0)
    assert all(p.isfinite().all() for p in probe.head.state_dict().values())
    assert sum(len(label) for _, label in knn.bank) == 7


def test_bar_words_fit_a_terminal():
    bar = Bar()
    bar.speed = 12345.6
    watched = trainer()
    watched.callback_metrics = {"train/loss": torch.tensor(19.23456), "train/rank": torch.tensor(15.55)}
    assert bar._words(watched) == "12346 img/s  loss 19.235  rank 15.6"

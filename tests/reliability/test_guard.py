"""Steps whose numbers are not finite leave no trace, are counted and written down, and too many stop the run."""

import csv
import json
import warnings

import lightning
import pytest
import torch
from faulty import FOREVER, Faulty, Pixels, ijepa, shards, train, vicreg
from lightning.pytorch.plugins import MixedPrecision

from jepa_pretrain import optim
from jepa_pretrain.callbacks.guard import Guard
from jepa_pretrain.callbacks.probes import OnlineKNN, OnlineProbe
from jepa_pretrain.contracts import UserError
from jepa_pretrain.schedules import Constant

pytestmark = pytest.mark.filterwarnings("ignore")
OPTIMIZERS = {
    "AdamW": lambda: optim.AdamW(Constant(1e-2), Constant(0.1)),
    "LARS": lambda: optim.LARS(Constant(1e-1), Constant(0.1)),
    "SGD": lambda: optim.SGD(Constant(1e-2), Constant(0.1)),
}


class Moved(lightning.Callback):
    """Which steps moved weights, buffers or the optimiser's state; whether all of it stayed finite."""

    def __init__(self):
        self.steps, self.before, self.finite = [], None, True

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.before = self.before or (trainer.global_step, self.state(trainer, module))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        step, before = self.before
        if trainer.global_step > step:
            after, self.before = self.state(trainer, module), None
            same = before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
            self.steps += [] if same else [step]
            self.finite &= all(tensor.isfinite().all() for tensor in after.values())

    def state(self, trainer, module):
        named = dict(module.named_parameters()) | dict(module.named_buffers())
        for number, of in enumerate(trainer.optimizers[0].state.values()):
            named |= {f"{number}.{name}": value for name, value in of.items() if isinstance(value, torch.Tensor)}
        return {name: tensor.detach().clone() for name, tensor in named.items()}


def logged(run, name):
    return [float(row[name]) for row in csv.DictReader((run / "metrics.csv").open())]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_a_skipped_step_moves_nothing(name, fault, demo_shards, tmp_path):
    """With momenta, weight decay and batch norm; in the first step as well, where optimisers make their state."""
    for first in (0, 2):
        moved, run = Moved(), tmp_path / str(first)
        train(vicreg(Faulty(fault, first), OPTIMIZERS[name]()), shards(demo_shards), run, 4, moved)
        assert moved.steps == [step for step in range(4) if step != first] and moved.finite
        assert logged(run, "train/skipped") == [float(step >= first) for step in range(4)]


def test_nan_pixels_reach_neither_batch_norm_nor_the_watchers(demo_shards, tmp_path):
    moved, probe, knn = Moved(), OnlineProbe(), OnlineKNN()
    train(vicreg(), shards(demo_shards), tmp_path, 4, moved, Pixels(1), probe, knn)
    assert moved.steps == [0, 2, 3] and moved.finite
    assert all(p.isfinite().all() for p in [*probe.head.parameters(), *probe.head.buffers()])
    assert all(features.isfinite().all() for features, _ in knn.bank)


def test_the_target_network_stays(demo_shards, tmp_path):
    moved = Moved()
    train(ijepa(), shards(demo_shards, 1, masker=True), tmp_path, 4, moved, Pixels(2))
    assert moved.steps == [0, 1, 3] and moved.finite


def test_one_bad_micro_batch_spoils_its_optimiser_step(demo_shards, tmp_path):
    moved = Moved()
    train(vicreg(Faulty("loss", first=3)), shards(demo_shards), tmp_path, 4, moved, accumulate_grad_batches=3)
    assert moved.steps == [0, 2, 3]  # calls 3, 4 and 5 are step 1
    fault = json.loads((tmp_path / "faults" / "step-00000001.json").read_text())
    assert [one["first"] for one in fault["ranks"][0]] == [24, 32, 40]
    assert [one["loss"] == "nan" for one in fault["ranks"][0]] == [True, False, False]


def test_a_clipped_infinite_gradient_is_skipped_too(demo_shards, tmp_path):
    moved = Moved()
    train(vicreg(Faulty("gradient", 1)), shards(demo_shards), tmp_path, 3, moved, gradient_clip_val=1.0)
    assert moved.steps == [0, 2] and moved.finite


def test_too_many_stop_the_run_with_a_line_that_helps(demo_shards, tmp_path):
    with pytest.raises(UserError, match=r"4 of the latest 1000 .*step-00000005.json.*--trainer.detect_anomaly true"):
        train(vicreg(Faulty("loss", 2, FOREVER)), shards(demo_shards), tmp_path, 10, Guard(max_skipped=3))
    assert len(list((tmp_path / "faults").iterdir())) == 4
    lines = [json.loads(line) for line in (tmp_path / "alarms.jsonl").read_text().splitlines()]
    assert [(one["step"], one["kind"], one["value"]) for one in lines] == [(n, "skipped", "nan") for n in (2, 3, 4, 5)]


def test_skipped_steps_long_ago_do_not_stop_a_run(demo_shards, tmp_path):
    guard = Guard(max_skipped=2)
    guard.load_state_dict({"skipped": 3, "recent": [-2000, -999, -1], "course": guard.course.state_dict()})
    train(vicreg(Faulty("loss", 1)), shards(demo_shards), tmp_path, 3, guard)
    assert (guard.skipped, list(guard.recent)) == (4, [-1, 1])  # -999 is 1,000 steps before 1


def test_anomaly_detection_is_off_and_names_the_operation_where_it_is_on(demo_shards, tmp_path):
    trainer = train(vicreg(Faulty("root", 1)), shards(demo_shards), tmp_path / "off", 3)
    assert not torch.is_anomaly_enabled() and trainer.callback_metrics["train/skipped"] == 1
    with pytest.raises(RuntimeError, match="SqrtBackward0"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(vicreg(Faulty("root", 1)), shards(demo_shards), tmp_path / "on", 3, detect_anomaly=True)


def test_ordinary_numbers_are_left_alone(demo_shards, tmp_path):
    """The same weights with and without the guard, bit for bit."""

    class Off(Guard):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            self._clear()

    ends = []
    for number, guard in enumerate((Guard(), Off())):
        method = ijepa()
        train(method, shards(demo_shards, 1, masker=True), tmp_path / str(number), 4, guard)
        ends.append(method.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not (tmp_path / "0" / "faults").exists() and not (tmp_path / "0" / "alarms.jsonl").exists()


def test_the_search_for_a_loss_scale_is_not_counted(demo_shards, tmp_path):
    """fp16: an infinite gradient under a finite loss says that the scale is too large; a loss of NaN is a fault."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=2.0**-8)
    plugin = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
    moved = Moved()
    trainer = train(vicreg(Faulty("loss", 7)), shards(demo_shards), tmp_path, 10, moved, plugins=[plugin])
    assert 0 < moved.steps[0] < 7 and moved.steps == [step for step in range(moved.steps[0], 10) if step != 7]
    assert moved.finite and trainer.callback_metrics["train/skipped"] == 1

"""A spike of the loss is told once and in time; ordinary noise, warm-up and slow changes are not."""

import json
import math
import random

import pytest
from faulty import Faulty, shards, train, vicreg

from jepa_pretrain.callbacks.alarms import drop_alarms, raise_alarm
from jepa_pretrain.callbacks.guard import Guard
from jepa_pretrain.callbacks.spikes import Course

NOISES = {
    "normal": lambda rng: rng.gauss(1, 0.1),
    "lognormal": lambda rng: rng.lognormvariate(0, 0.5),
    "double exponential": lambda rng: 5 + rng.expovariate(1) - rng.expovariate(1),
    "nearly none": lambda rng: 0.3 + rng.gauss(0, 1e-6),
    "constant": lambda rng: 0.0,
}
COURSES = {
    "falling": lambda step: 30 * math.exp(-step / 200),
    "rising through the warm-up": lambda step: 0.1 + min(step, 1000) / 1000,
    "falling, then rising": lambda step: 1 + 20 * math.exp(-step / 30) + step / 500,
    "a step down": lambda step: 2.0 if step < 500 else 1.0,
}


def told(losses):
    course = Course()
    return [step for step, loss in enumerate(losses) if course.add(loss) is not None]


@pytest.mark.parametrize("name", NOISES)
def test_ordinary_noise_gives_no_alarm(name):
    rng = random.Random(0)
    assert told(NOISES[name](rng) for _ in range(5000)) == []


@pytest.mark.parametrize("name", COURSES)
def test_the_course_of_a_training_gives_no_alarm(name):
    rng = random.Random(1)
    assert told(COURSES[name](step) * rng.gauss(1, 0.02) for step in range(3000)) == []


def test_the_first_steps_give_none_whatever_they_do():
    rng = random.Random(2)
    assert told([rng.choice([1.0, 1e6]) for _ in range(50)]) == []


def noisy(count):
    rng = random.Random(3)
    return [rng.gauss(1, 0.05) for _ in range(count)]


def test_one_enormous_step_and_several_high_ones_are_told_once():
    calm = noisy(400)
    assert told([*calm[:200], 50.0, *calm[200:]]) == [200]
    assert told([*calm[:200], 1.8, 1.9, 1.8, 1.7, 1.9, *calm[200:]]) == [202]
    assert told([*calm[:200], 1.8, 1.9, *calm[200:]]) == []  # two in a row are not three
    assert told([*calm[:200], *[10.0] * 20, *calm[200:]]) == [200]
    assert told([*calm[:200], 50.0, *calm[200:], 50.0]) == [200, 401]


def test_a_course_goes_on_after_a_checkpoint():
    losses = [*noisy(200), 1.8, 1.9, 1.8, 1.8]
    for cut in (10, 120, 202, 203):
        first, second = Course(), Course()
        found = [step for step, loss in enumerate(losses[:cut]) if first.add(loss)]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert found + [step for step, loss in enumerate(losses[cut:], cut) if second.add(loss)] == [202]


@pytest.mark.filterwarnings("ignore")
def test_a_run_tells_a_spike_in_plain_words_and_goes_on(demo_shards, tmp_path):
    train(vicreg(Faulty("jump", first=60)), shards(demo_shards), tmp_path, 65, Guard())
    (line,) = map(json.loads, (tmp_path / "alarms.jsonl").read_text().splitlines())
    assert (line["step"], line["kind"]) == (60, "spike")
    assert "the loss has jumped to" in line["message"] and "lower learning rate" in line["message"]


@pytest.mark.filterwarnings("ignore")
def test_alarms_of_steps_that_are_run_again_are_dropped(tmp_path):
    for step in (3, 7, 8, 9):
        raise_alarm(tmp_path, step, "spike", f"number {step}", float("inf"))
    with (tmp_path / "alarms.jsonl").open("a") as file:
        file.write('{"step": 2, "ki')  # a process that was killed here
    drop_alarms(tmp_path, 8)
    lines = [json.loads(line) for line in (tmp_path / "alarms.jsonl").read_text().splitlines()]
    assert [(one["step"], one["value"]) for one in lines] == [(3, "inf"), (7, "inf")]
    drop_alarms(tmp_path / "none", 8)

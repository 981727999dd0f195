"""Faults of every kind, at random steps: each is skipped, none leaves a trace."""

import random

import pytest
from faulty import Faulty, Pixels, shards, train, vicreg
from reliability.test_guard import OPTIMIZERS, Moved

from jepa_pretrain.callbacks.guard import Guard

STEPS, SHARE = 100, 0.2


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("fault", ["loss", "gradient", "root", "pixels"])
def test_faults_at_random(fault, name, demo_shards, tmp_path):
    rng = random.Random(f"{fault} {name}")
    spoilt = {step for step in range(STEPS) if rng.random() < SHARE}
    objective = Faulty(fault)
    objective.spoilt = spoilt if fault != "pixels" else ()
    extra = [Pixels(step) for step in spoilt] if fault == "pixels" else []
    moved, guard = Moved(), Guard(max_skipped=STEPS)
    train(vicreg(objective, OPTIMIZERS[name]()), shards(demo_shards), tmp_path, STEPS, moved, guard, *extra)
    assert moved.steps == [step for step in range(STEPS) if step not in spoilt] and moved.finite
    assert guard.skipped == len(spoilt) == len(list((tmp_path / "faults").iterdir()))
    print(f"{len(spoilt)} faults")

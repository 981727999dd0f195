"""The long one: a run that is killed at random moments, again and again, ends as if nothing had happened.

    python -m pytest -m soak tests/reliability/test_soak.py

SOAK_KILLS says how often (default 50), SOAK_SEED names the moments (default 0).
"""

import json
import os
import random
import signal
import time
from collections import Counter

import pytest
from reliability.runs import arguments, differences, run, start

KILLS, SEED = int(os.environ.get("SOAK_KILLS", 50)), int(os.environ.get("SOAK_SEED", 0))
LONG = ["--trainer.max_steps", str(14 * KILLS), "--checkpoint.every", "7", "--trainer.val_check_interval", "50"]
LONG += ["--collapse.every", "20"]


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(number) for number in file.read().split()]


def hit(child, kind: str) -> None:
    """One fault of a kind to a running job."""
    if kind == "worker" and (workers := children(child.pid)):
        os.kill(random.choice(workers), signal.SIGKILL)
    elif kind == "SIGTERM":
        os.kill(child.pid, signal.SIGTERM)
    else:
        os.kill(child.pid, signal.SIGKILL)


@pytest.mark.soak
@pytest.mark.parametrize("recipe", ["ijepa", "vicreg"])
def test_killed_at_random_moments(demo_shards, tmp_path, recipe):
    random.seed(SEED)
    quiet, command = (arguments(recipe, tmp_path / name, demo_shards, *LONG) for name in ("quiet", "run"))
    assert run(quiet, tmp_path / "quiet.log") == 0
    codes, log = Counter(), tmp_path / "log"
    for number in range(KILLS):
        log.write_text("")
        workers = ["--data.workers", str(random.randrange(3)), "--ckpt_path", "last"]
        child = start([*command, *workers], log)
        while "training from" not in log.read_text() and child.is_alive():
            time.sleep(0.01)
        time.sleep(random.uniform(0, 1))
        kind = random.choice(["SIGKILL", "SIGKILL", "SIGTERM", "worker"])
        if child.is_alive():
            hit(child, kind)
        child.join(120)
        codes[f"{kind}: {child.exitcode}"] += 1
        assert child.exitcode != 0, f"finished before kill {number}: make the run longer"
        assert "Traceback" not in log.read_text(), log.read_text()
    assert run([*command, "--ckpt_path", "last"], log) == 0
    print(json.dumps(codes))
    assert differences(tmp_path / "quiet", tmp_path / "run") == []

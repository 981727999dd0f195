"""Our I-JEPA against the official code, where a clone of it is at hand: `IJEPA_OFFICIAL=folder pytest ...`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLONE = os.environ.get("IJEPA_OFFICIAL")


@pytest.mark.skipif(CLONE is None, reason="IJEPA_OFFICIAL names no clone of facebookresearch/ijepa")
def test_every_stage_equals_the_official_one():
    size = ["--model", "vit_tiny", "--batch", "2", "--predictor-depth", "2", "--threads", "1", "--device", "cpu"]
    script = ["scripts/benchmarks/ijepa_step.py", "--official", CLONE, "--check", *size]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

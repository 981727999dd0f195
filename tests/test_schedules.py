"""Schedules hit their published points."""

import pytest

from jepa_pretrain.schedules import Constant, Cosine, Cut, Linear, Ramp, WarmupCosine


def test_points():
    assert Constant(3.0)(0.7) == 3.0
    assert Linear(0.996, 1.0)(0.5) == pytest.approx(0.998)
    cosine = Cosine(0.04, 0.4)
    assert [cosine(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.04, 0.22, 0.4])


def test_warmup_cosine():
    lr = WarmupCosine(peak=1e-3, start=2e-4, end=1e-6, warmup=0.25)
    assert [lr(p) for p in (0.0, 0.125, 0.25, 0.625, 1.0)] == pytest.approx([2e-4, 6e-4, 1e-3, 5.005e-4, 1e-6])
    assert WarmupCosine(1.0, warmup=0.0)(0.0) == 1.0
    with pytest.raises(ValueError, match="share"):
        WarmupCosine(1.0, warmup=10)


def test_ramp_and_cut():
    ramp = Ramp(0.5, 0.2, 0.4)
    assert [ramp(p) for p in (0.0, 0.2, 0.4, 1.0)] == [0.0, 0.0, 0.5, 0.5] and abs(ramp(0.3) - 0.25) < 1e-12
    longer = Linear(0.998, 1.0)
    assert Cut(longer, 0.8)(1.0) == longer(0.8) and Cut(longer, 0.8)(0.0) == 0.998

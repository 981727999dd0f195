"""The target follows its source and nothing else moves it."""

import torch
from torch import nn

from jepa_pretrain.ema import EMA


def test_update_is_the_moving_average_and_copies_buffers():
    source = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    ema = EMA(source)
    before = ema.module[0].weight.clone()
    with torch.no_grad():
        source[0].weight.add_(1.0)
    source(torch.randn(8, 3))
    ema.update(source, 0.9)
    torch.testing.assert_close(ema.module[0].weight, 0.9 * before + 0.1 * source[0].weight.detach())
    assert torch.equal(ema.module[1].running_mean, source[1].running_mean)


def test_no_gradient_and_always_evaluation():
    ema = EMA(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))).train()
    x = torch.ones(4, 3, requires_grad=True)
    assert not ema(x).requires_grad and torch.equal(ema(x), ema(x))
    assert not any(p.requires_grad for p in ema.parameters())

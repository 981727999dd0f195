"""Who is decayed, and that values follow the schedule; LARS against the paper's formula."""

import torch
from torch import nn

from jepa_pretrain.models.predictor import MaskedPredictor
from jepa_pretrain.models.vit import ViT
from jepa_pretrain.optim import LARS, SGD, AdamW, parameter_groups
from jepa_pretrain.schedules import Constant, Cosine, Linear


def test_only_matrices_are_decayed():
    vit = ViT(16, 4, 16, 1, 2)
    predictor = MaskedPredictor(16, vit.grid, 8, 1, 2)
    module = nn.ModuleDict({"vit": vit, "predictor": predictor})
    decayed, plain = parameter_groups(module)
    names = {id(p): n for n, p in module.named_parameters()}
    plain_names = {names[id(p)] for p in plain["params"]}
    assert "predictor.mask_token" in plain_names and "vit.norm.weight" in plain_names
    assert all(n.endswith("bias") or "norm" in n or n.endswith("mask_token") for n in plain_names)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_values_follow_progress_and_spare_the_undecayed():
    recipe = AdamW(Linear(1.0, 0.0), Cosine(0.04, 0.4))
    optimizer = recipe.build(ViT(16, 4, 16, 1, 2))
    recipe.move(optimizer, 0.5)
    decayed, plain = optimizer.param_groups
    assert decayed["lr"] == plain["lr"] == 0.5
    assert abs(decayed["weight_decay"] - 0.22) < 1e-9 and plain["weight_decay"] == 0.0


def test_lars_step_is_the_papers():
    """You et al. 2017: local lr = eta |w| / (|g| + wd |w|) for matrices, plain SGD for biases."""
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    w, b = layer.weight.detach().clone(), layer.bias.detach().clone()
    layer(torch.randn(7, 5)).square().sum().backward()
    g, gb = layer.weight.grad.clone(), layer.bias.grad.clone()
    eta, wd, lr = 0.001, 1e-2, 0.5
    LARS(Constant(lr), Constant(wd), eta=eta).build(layer).step()
    local = eta * w.norm() / (g.norm() + wd * w.norm())
    torch.testing.assert_close(layer.weight.detach(), w - lr * local * (g + wd * w), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(layer.bias.detach(), b - lr * gb)


def test_sgd_builds():
    optimizer = SGD(Constant(0.1), Constant(1e-4), momentum=0.8).build(nn.Linear(4, 4))
    assert optimizer.param_groups[0]["momentum"] == 0.8

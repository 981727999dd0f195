import pytest
import torch
import torch.nn.functional as F
from known_features import clusters
from sklearn.linear_model import LogisticRegression

from jepa_pretrain.evals import heads
from jepa_pretrain.evals.linear import Sweep


def train(features, label, lr=(1.0,), weight_decay=(0.0,), batch_norm=False, epochs=20, batch_size=32):
    classes = int(label.max()) + 1
    return heads.train(
        features, label, classes, torch.tensor(lr), torch.tensor(weight_decay), batch_norm, epochs, batch_size, seed=0
    )


@pytest.mark.parametrize("batch_norm", [False, True])
def test_inputs_have_unit_mean_square_norm_and_no_offset(batch_norm):
    features = torch.randn(500, 6) * torch.tensor([1, 10, 0.1, 3, 0, 5]) + 40
    seen = heads.inputs(features, batch_norm)(features)
    assert seen.mean(dim=0).abs().max() < 1e-4
    assert seen.square().sum(dim=1).mean().item() == pytest.approx(5 / 6 if batch_norm else 1, rel=1e-3)
    if batch_norm:
        alive = seen.std(dim=0, unbiased=False)[[0, 1, 2, 3, 5]]
        assert torch.allclose(alive, torch.full((5,), 6**-0.5), rtol=1e-2)


def test_each_head_is_what_autograd_and_torch_sgd_make_of_it():
    data = clusters(96)
    lr, weight_decay = (0.5, 2.0), (1e-2, 1e-3)
    ours = train(data.last, data.label, lr, weight_decay, batch_norm=True, epochs=3)
    x = heads.inputs(data.last, True)(data.last)
    for h in range(2):
        weight, bias = torch.zeros(16, 5, requires_grad=True), torch.zeros(5, requires_grad=True)
        groups = [{"params": weight, "weight_decay": weight_decay[h]}, {"params": bias, "weight_decay": 0}]
        optimizer = torch.optim.SGD(groups, lr=lr[h], momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)
        rng = torch.Generator().manual_seed(0)
        for _ in range(3):
            for index in torch.randperm(96, generator=rng).view(3, 32):
                optimizer.zero_grad()
                F.cross_entropy(x[index] @ weight + bias, data.label[index]).backward()
                optimizer.step()
                schedule.step()
        assert torch.allclose(ours.weight[:, h], weight, atol=1e-5)
        assert torch.allclose(ours.bias[h], bias, atol=1e-5)


def test_heads_do_not_disturb_each_other():
    data = clusters(200)
    together = train(data.last, data.label, (0.1, 100.0), (0.0, 0.0))
    alone = train(data.last, data.label, (0.1,), (0.0,))
    assert torch.allclose(together.weight[:, :1], alone.weight, atol=1e-5)


def test_accuracy_counts_by_hand():
    features, label = torch.eye(3), torch.tensor([0, 1, 1])
    plain = heads.Inputs(torch.zeros(3), torch.ones(()))
    fixed = heads.Heads(plain, torch.eye(3).unsqueeze(1), torch.zeros(1, 3))
    assert heads.accuracy(fixed, features, label, chunk=2).item() == pytest.approx(2 / 3)
    assert heads.accuracy(fixed, features, label, top=3).item() == 1


@pytest.mark.parametrize("offset, spread", [(0.0, 1.0), (30.0, 20.0)])
def test_the_best_head_is_as_good_as_logistic_regression(offset, spread):
    """Also on features with a large common offset and a spectrum that falls over several orders of magnitude."""
    rng = torch.Generator().manual_seed(1)
    scale = torch.logspace(0, -2, 24) * spread
    centres = torch.randn(6, 24, generator=rng)
    label = torch.arange(1500) % 6
    features = (centres[label] + 2 * torch.randn(1500, 24, generator=rng)) * scale + offset
    fit, held = slice(0, 1000), slice(1000, 1500)
    sweep, best = Sweep(), 0.0
    for batch_norm in (False, True):
        grid = [(lr, wd) for lr in sweep.lr for wd in sweep.weight_decay]
        trained = train(features[fit], label[fit], *zip(*grid, strict=True), batch_norm, epochs=50, batch_size=256)
        best = max(best, heads.accuracy(trained, features[held], label[held]).max().item())
    standard = heads.inputs(features[fit], True)
    oracle = LogisticRegression(max_iter=500, C=10).fit(standard(features[fit]).numpy() * 24**0.5, label[fit].numpy())
    assert best >= oracle.score(standard(features[held]).numpy() * 24**0.5, label[held].numpy()) - 0.015

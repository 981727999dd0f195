"""What every method promises, and the algorithm of each against a transcription."""

import pytest
import torch
import torch.nn.functional as F

from jepa_pretrain.contracts import Batch, UserError
from jepa_pretrain.masking import MultiBlock
from jepa_pretrain.methods.ijepa import IJEPA
from jepa_pretrain.methods.joint_embedding import JointEmbedding
from jepa_pretrain.methods.supervised import Supervised
from jepa_pretrain.models.predictor import MaskedPredictor
from jepa_pretrain.models.projector import Projector
from jepa_pretrain.models.timm_encoder import TimmEncoder
from jepa_pretrain.models.vit import ViT
from jepa_pretrain.objectives.vicreg import VarianceCovarianceLoss, VICRegLoss
from jepa_pretrain.optim import AdamW
from jepa_pretrain.schedules import Constant

B = 6


def ijepa(**options):
    torch.manual_seed(0)
    optimizer = AdamW(Constant(1e-3), Constant(0.05))
    return IJEPA(
        ViT(32, 4, 32, 2, 2), lambda w, g: MaskedPredictor(w, g, 16, 1, 2), optimizer, Constant(0.9), **options
    )


def vicreg():
    torch.manual_seed(0)
    optimizer = AdamW(Constant(1e-3), Constant(0.05))
    return JointEmbedding(TimmEncoder("test_resnet", 32), lambda w: Projector(w, (24,), 20), VICRegLoss(), optimizer)


def supervised(**options):
    torch.manual_seed(0)
    return Supervised(ViT(32, 8, 16, 1, 2), B, AdamW(Constant(1e-3), Constant(0.05)), **options)


def batch(views=1, masks=True):
    rng = torch.Generator().manual_seed(1)
    pictures = [torch.randint(0, 256, (B, 3, 1, 32, 32), dtype=torch.uint8, generator=rng) for _ in range(views)]
    drawn = [MultiBlock()(B, ViT(32, 4, 32, 1, 2).grid, rng)] if masks else []
    return Batch(pictures, drawn, torch.arange(B), [f"shard/{i}" for i in range(B)])


@pytest.mark.parametrize("make, data", [(ijepa, batch()), (vicreg, batch(2, False)), (supervised, batch())])
def test_contract(make, data):
    method = make()
    output = method.step(data)
    assert output.loss.ndim == 0 and output.loss.requires_grad
    assert output.features.shape == (B, method.exported.width)
    assert not output.features.requires_grad and not any(t.requires_grad for t in output.terms.values())
    assert method.get_submodule(method.export_name) is method.exported
    output.loss.backward()
    idle = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle


def test_ijepa_is_the_algorithm_of_the_paper():
    method, data = ijepa().eval(), batch()
    clip, (context, targets) = data.views[0], data.masks[0]
    with torch.no_grad():
        tokens = method.target.module(clip)
        normed = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        predicted = method.predictor(method.encoder(clip, context), data.masks[0])
        losses = []
        for sample in range(B):
            for block in range(targets.shape[1]):
                difference = (predicted[sample, block] - normed[sample][targets[sample, block]]).abs()
                losses.append(torch.where(difference < 1, 0.5 * difference**2, difference - 0.5).mean())
        torch.testing.assert_close(method.step(data).loss, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)


def test_ijepa_sees_only_the_context():
    """Pixels outside the context may change the targets, never the prediction."""
    method, data = ijepa().eval(), batch()
    clip, masks = data.views[0], data.masks[0]
    hidden = clip.clone()
    for sample, seen in enumerate(masks.context):
        for token in set(range(64)) - set(seen.tolist()):
            row, column = token // 8 * 4, token % 8 * 4
            hidden[sample, :, :, row : row + 4, column : column + 4] = 0
    with torch.no_grad():
        predict = [method.predictor(method.encoder(x, masks.context), masks) for x in (clip, hidden)]
    assert torch.equal(*predict)


def test_ijepa_target_moves_only_by_follow():
    method = ijepa()
    before = method.target.module.norm.bias.clone()
    optimizer = method.optimizer.build(method)
    method.step(batch()).loss.backward()
    optimizer.step()
    assert torch.equal(method.target.module.norm.bias, before)
    method.follow(0.5)
    expected = 0.9 * before + 0.1 * method.encoder.norm.bias.detach()
    torch.testing.assert_close(method.target.module.norm.bias, expected)


def test_ijepa_regularizer_adds_its_weight():
    plain = ijepa().step(batch())
    regular = ijepa(regularizer=VarianceCovarianceLoss(), regularizer_weight=0.5).step(batch())
    torch.testing.assert_close(regular.loss, plain.loss + 0.5 * regular.terms["regularizer"])
    assert regular.terms["regularizer"] > 0


def test_vicreg_step_is_the_objective_on_two_branches():
    method, data = vicreg(), batch(2, False)
    z = [method.projector(F.adaptive_avg_pool1d(method.encoder(v).mT, 1).squeeze(2)) for v in data.views]
    torch.testing.assert_close(method.step(data).loss, method.objective(z)[0])


def test_learns():
    """Ten steps on one batch lower the prediction loss of both."""
    for method, data in ((ijepa(), batch()), (vicreg(), batch(2, False))):
        optimizer = torch.optim.AdamW(method.parameters(), 3e-3)
        losses = []
        for _ in range(10):
            loss = method.step(data).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
        assert losses[-1] < 0.9 * losses[0]


def test_mistakes_are_explained():
    with pytest.raises(UserError, match="needs masks"):
        ijepa().step(batch(masks=False))
    with pytest.raises(UserError, match="two views"):
        vicreg().step(batch(1, False))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_supervised_is_the_cross_entropy_of_those_with_labels(smoothing):
    method, data = supervised(smoothing=smoothing), batch()
    data = data._replace(label=torch.tensor([0, 3, -1, 5, -1, 2]))
    with torch.no_grad():
        log = method.head(method.encoder(data.views[0]).mean(1)).log_softmax(1)
        losses = [
            -(1 - smoothing) * log[i, label] - smoothing * log[i].mean()
            for i, label in enumerate(data.label.tolist())
            if label >= 0
        ]
        output = method.step(data)
    torch.testing.assert_close(output.loss, torch.stack(losses).mean())
    right = (log.argmax(1) == data.label).sum() / 4
    torch.testing.assert_close(output.terms["top1"], 100 * right)
    assert method.step(data._replace(label=torch.full((B,), -1))).loss == 0


def test_supervised_learns_and_refuses_too_few_classes():
    method, data = supervised(), batch()
    optimizer = torch.optim.Adam(method.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = method.step(data).loss
        loss.backward()
        optimizer.step()
    assert loss < 0.3 and method.step(data).terms["top1"] == 100
    with pytest.raises(UserError, match="two classes or more"):
        Supervised(ViT(32, 8, 16, 1, 2), 1, AdamW(Constant(1e-3), Constant(0.05)))

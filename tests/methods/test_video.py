"""I-JEPA on clips, which is V-JEPA: the same class, by arguments."""

import pytest
import torch
import torch.nn.functional as F

from jepa_pretrain.contracts import Batch, Grid, UserError
from jepa_pretrain.masking import Tubes
from jepa_pretrain.methods.ijepa import IJEPA
from jepa_pretrain.models.predictor import DensePredictor, DenseRotaryPredictor, MaskedPredictor, RotaryPredictor
from jepa_pretrain.models.rotary_vit import MixedViT, RotaryViT
from jepa_pretrain.models.vit import ViT
from jepa_pretrain.objectives.dense import DenseLoss
from jepa_pretrain.ops import gather_tokens
from jepa_pretrain.optim import AdamW
from jepa_pretrain.schedules import Constant

B, GRID = 8, Grid(2, 4, 4)
MASKERS = [Tubes(4, (0.15, 0.15)), Tubes(1, (0.6, 0.6))]


def vjepa(encoder=ViT, predictor=MaskedPredictor, depth=2, **options):
    torch.manual_seed(0)
    optimizer = AdamW(Constant(1e-3), Constant(0.05))
    made = encoder(32, 8, 48, depth, 4, frames=4, tubelet=2)
    return IJEPA(
        made, lambda w, g: predictor(w, g, 48, 1, 4), optimizer, Constant(0.999), loss=torch.nn.L1Loss(), **options
    )


def moving(grid=GRID, frames=4):
    """A disc crosses a ground; starts, speeds and colours differ, and what is hidden follows from what is seen."""
    y, x, t = torch.arange(32.0)[:, None], torch.arange(32.0), torch.arange(float(frames)).view(-1, 1, 1)
    clips = []
    for i in range(B):
        ground = torch.tensor([i & 1, i >> 1 & 1, i >> 2]).view(3, 1, 1, 1) * 200.0
        row, column = 4.0 + 3 * i, 28.0 - 3 * i
        near = (y - row - 2 * t).square() + (x - column + 2 * (i % 3) * t).square() < 60  # (T, H, W)
        clips.append(torch.where(near, 250.0 - ground, ground))
    rng = torch.Generator().manual_seed(0)
    masks = [masker(B, grid, rng) for masker in MASKERS]
    return Batch([torch.stack(clips).to(torch.uint8)], masks, torch.arange(B), [f"shard/{i}" for i in range(B)])


def fit(method, data, steps):
    """Prediction losses of full-batch steps, the target following."""
    optimizer, losses = torch.optim.AdamW(method.parameters(), 6e-3, betas=(0.9, 0.98)), []
    for _ in range(steps):
        output = method.step(data)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.follow(0.5)
        losses.append(float(output.terms["prediction"]))
    return losses


@pytest.mark.parametrize("encoder, predictor", [(ViT, MaskedPredictor), (RotaryViT, RotaryPredictor)])
def test_learns_a_moving_pattern(encoder, predictor):
    """The hidden tokens are predicted far better than by their mean over clips, and the targets do not collapse."""
    method, data = vjepa(encoder, predictor, depth=1), moving()
    losses = fit(method, data, 80)
    with torch.no_grad():
        target = F.layer_norm(method.target(data.views[0]), (48,))
        mean = target.mean(dim=0, keepdim=True).expand(B, -1, -1)
        guess = [F.l1_loss(gather_tokens(mean, m.targets), gather_tokens(target, m.targets)) for m in data.masks]
        assert method.step(data).loss < 0.5 * sum(guess) / len(guess)
    assert target.std(dim=0).mean() > 0.5 and losses[-1] < 0.5 * losses[0]


def test_the_loss_is_the_mean_over_all_masks():
    method, data = vjepa().eval(), moving()
    alone = [method.step(data._replace(masks=[masks])).loss for masks in data.masks]
    assert abs(alone[0] - alone[1]) > 1e-4
    torch.testing.assert_close(method.step(data).loss, sum(alone) / 2)


def test_a_picture_is_a_clip_of_one_frame():
    """The same seed and no time: nothing that I-JEPA does differs."""
    torch.manual_seed(0)
    picture = ViT(32, 8, 48, 2, 4)
    torch.manual_seed(0)
    clip = ViT(32, 8, 48, 2, 4, frames=1, tubelet=1)
    pixels = torch.rand(2, 3, 1, 32, 32)
    assert torch.equal(picture(pixels), clip(pixels)) and clip.patch_embed.proj.weight.ndim == 4


def test_pictures_and_clips_take_turns():
    method = vjepa(MixedViT, RotaryPredictor)
    film, still = moving(), moving(Grid(1, 4, 4), 1)
    for data in (film, still, film, still):
        assert torch.isfinite(torch.tensor(fit(method, data, 3))).all()
    assert method.step(still).loss.requires_grad


def test_several_depths_are_predicted_side_by_side(monkeypatch):
    method, data = vjepa(RotaryViT, DenseRotaryPredictor, 4, depths=(2, 3, 4), dense=DenseLoss(Constant(0.5))), moving()
    monkeypatch.setattr(IJEPA, "progress", 0.5)
    for part in (method.target.module.norm.bias, method.target.module.blocks[2].mlp.fc2.weight):
        torch.nn.init.normal_(part)  # or the depths would be alike, and normed as they come
    output = method.step(data)
    assert method.predictor.predictor_proj.out_features == 3 * 48 and output.features.shape == (B, 48)
    last = method.target(data.views[0]).mean(1)
    torch.testing.assert_close(output.features, last)  # probes see the last depth alone
    output.loss.backward()
    assert not [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    with torch.no_grad():  # the loss, written out
        clip, levels = data.views[0], (2, 3, 4)
        layers = method.target.module.forward_layers(clip, 3)
        target = torch.cat([F.layer_norm(layer, (48,)) for layer in layers], dim=2)
        hidden, visible = [], []
        for masks in data.masks:
            context = method.encoder(clip, masks.context, levels)
            predicted, seen = method.predictor(context, masks)
            hidden.append((predicted - gather_tokens(target, masks.targets)).abs().mean())
            visible.append(method.dense(seen, gather_tokens(target, masks.context), masks, GRID))
        torch.testing.assert_close(output.loss.detach(), sum(hidden) / 2 + 0.5 * sum(visible) / 2)
        torch.testing.assert_close(output.terms["visible"], sum(visible) / 2)


def test_each_depth_has_a_gradient_of_its_own():
    """Where only the first depth is predicted, nothing reaches the blocks behind it."""
    method, data = vjepa(depth=3, depths=(1,)), moving()
    method.step(data).loss.backward()
    assert method.encoder.blocks[0].mlp.fc1.weight.grad.abs().sum() > 0
    assert method.encoder.blocks[1].mlp.fc1.weight.grad is None


def test_dense_loss_teaches_its_own_layer(monkeypatch):
    monkeypatch.setattr(IJEPA, "progress", 0.5)
    silent, loud = (vjepa(predictor=DensePredictor, dense=DenseLoss(Constant(w))) for w in (0.0, 1.0))
    for method, learns in ((silent, False), (loud, True)):
        method.step(moving()).loss.backward()
        assert bool(method.predictor.predictor_proj_context.weight.grad.abs().sum() > 0) is learns


def test_mistakes_are_explained():
    with pytest.raises(UserError, match="go together"):
        vjepa(dense=DenseLoss(Constant(0.5)))
    with pytest.raises(UserError, match="go together"):
        vjepa(predictor=DensePredictor)
    blocks = moving().masks[0]
    split = blocks._replace(targets=blocks.targets[:, :, :8].view(B, 2, 4))
    with pytest.raises(UserError, match="joint"):
        DensePredictor(48, GRID, 24, 1, 4)(torch.rand(B, blocks.context.shape[1], 48), split)

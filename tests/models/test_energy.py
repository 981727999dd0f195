"""Energies are those of the definition, for futures and for masked regions."""

import pytest
import torch
from small_hierarchies import WIDTH, first, hierarchy, upper

from jepa_pretrain.masking import MultiBlock
from jepa_pretrain.models.energy import auroc, future_energy, landscapes, masked_energy
from jepa_pretrain.models.latent import Discrete
from jepa_pretrain.models.predictor import MaskedPredictor
from jepa_pretrain.models.vit import ViT


def test_auroc_counts_pairs():
    torch.manual_seed(0)
    low, high = torch.randint(0, 6, (20,)).float(), torch.randint(2, 9, (15,)).float()
    pairs = low[:, None] - high[None]
    expected = ((pairs < 0).float() + 0.5 * (pairs == 0)).mean()
    assert auroc(low, high) == pytest.approx(float(expected))
    assert auroc(torch.zeros(3), torch.ones(4)) == 1.0 and auroc(torch.ones(3), torch.ones(4)) == 0.5


def test_the_energy_of_a_future_is_the_minimum_over_z_at_each_step():
    torch.manual_seed(0)
    level = hierarchy(first(latent=Discrete(WIDTH, 3, weight=0.2))).levels[0].eval()
    for p in level.parameters():
        torch.nn.init.normal_(p, std=0.3)
    states, future = torch.randn(4, 2, 1, WIDTH), torch.randn(4, 2, 1, WIDTH)
    energies = future_energy(level, states, future)
    with torch.no_grad():
        for b in range(4):
            past = level.latent.amortised(states[b : b + 1, :1], states[b : b + 1, 1:])
            known = states[b : b + 1]
            for h in range(2):
                tried = []
                for value in torch.eye(3):
                    z = torch.cat([past, value[None, None]], 1)
                    predicted = level.predictor(known, None, z)[:, -1]
                    cost = 0.2 * level.latent.penalty(value[None], known[:, -1])
                    tried.append(((predicted - future[b, h]).square().mean() + cost.squeeze(), predicted, z))
                value, predicted, past = min(tried, key=lambda one: one[0])
                torch.testing.assert_close(energies[b, h], value)
                known = torch.cat([known, predicted[:, None]], 1)


def test_landscapes_of_all_levels_shuffle_what_belongs_to_the_future():
    torch.manual_seed(0)
    made = hierarchy(first(2), upper(2, of_states=True), upper(2, inputs=4)).eval()
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.3)
    clip = torch.randint(0, 256, (3, 3, 9, 16, 16), dtype=torch.uint8)
    done = torch.randn(3, 9, 2)
    drawn = landscapes(made, clip, done)
    assert [one.true.shape for one in drawn] == [(3, 8), (3, 4), (3, 2)]
    with torch.no_grad():
        own = made.moments(clip, done)
        for level, one, number in zip(made.levels, own, range(3), strict=True):
            wrong = one.states[:, 1:].roll(1, 0)
            inferred = one.actions.roll(1, 0) if number else one.actions  # levels 2 and 3 infer what was done
            expected = (level.predictor(one.states[:, :1], inferred[:, :1])[:, 0] - wrong[:, 0]).square().mean((1, 2))
            torch.testing.assert_close(drawn[number].shuffled[:, 0], expected)


class Colour(torch.nn.Module):
    """A target encoder whose every token says the colour of the picture."""

    def __init__(self):
        super().__init__()
        self.code = torch.randn(3, 32)

    def forward(self, clip):
        return (clip.mean((2, 3, 4)) @ self.code)[:, None].expand(-1, 64, -1)


def test_masked_energy_is_the_error_of_the_prediction_and_lower_for_what_fits():
    torch.manual_seed(0)
    encoder, target = ViT(32, 4, 32, 1, 2), Colour()
    predictor = MaskedPredictor(32, encoder.grid, 16, 1, 2)
    colours = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)  # (8, 3)
    plain = colours[:, :, None, None, None].expand(-1, -1, 1, 32, 32)  # any part tells the rest
    masks = MultiBlock()(8, encoder.grid, torch.Generator().manual_seed(0))
    rows = torch.nn.functional.layer_norm(target(plain), (32,))[:, None, :1]  # (B, 1, 1, D), the same everywhere
    optimizer = torch.optim.AdamW([*encoder.parameters(), *predictor.parameters()], 5e-3)
    for _ in range(40):
        loss = (predictor(encoder(plain, masks.context), masks) - rows).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    true = masked_energy(encoder, predictor, target, plain, plain, masks)
    with torch.no_grad():
        errors = (predictor(encoder(plain, masks.context), masks) - rows).square().mean((1, 2, 3))
    torch.testing.assert_close(true, errors)
    assert auroc(true, masked_energy(encoder, predictor, target, plain, plain.roll(1, 0), masks)) > 0.8

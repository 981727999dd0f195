"""The energy landscape shows the scores of the energies, for every level and horizon."""

import base64

import torch
from small_hierarchies import first, hierarchy, upper

from jepa_pretrain.models.energy import Landscape, auroc, landscapes
from jepa_pretrain.report import landscape


def text(address):
    return base64.b64decode(address.removeprefix("data:image/svg+xml;base64,")).decode()


def test_every_level_and_horizon_has_its_score():
    torch.manual_seed(0)
    made = hierarchy(first(), upper(4, macro=0)).eval()
    clips = torch.randint(0, 256, (4, 3, 9, 16, 16), dtype=torch.uint8)
    page = landscape.energies(made, clips)
    for one in landscapes(made, clips):
        for horizon in range(one.true.shape[1]):
            assert f"<td class='number'>{auroc(one.true[:, horizon], one.shuffled[:, horizon]):.3f}</td>" in page
    assert page.count("<td class='number'></td>") == 6, "level 2 has two of level 1's eight horizons"


def test_the_pictures_follow_the_energies():
    low, high = torch.rand(8, 3), 2 + torch.rand(8, 3)
    apart, same = (landscape.histograms([Landscape(low, other)]) for other in (high, low))
    assert text(apart) != text(same)
    line = torch.rand(5, 11)
    assert text(landscape.fork(line)) != text(landscape.fork(line.flip(1)))

"""What stands still does not count, and what changes does."""

import pytest
import torch

from jepa_pretrain.contracts import UserError
from jepa_pretrain.objectives.changes import Changes
from jepa_pretrain.objectives.vicreg import VarianceCovarianceLoss


def test_scenery_does_not_count():
    torch.manual_seed(0)
    moving, scenery = torch.randn(5, 8, 3), 10 * torch.randn(8, 3)
    plain, changes = VarianceCovarianceLoss(1.0, 0.0), Changes(VarianceCovarianceLoss(1.0, 0.0))
    still = list(scenery.expand(5, -1, -1))
    assert plain(still)[0] < changes(still)[0] and changes(still)[0] > 0.9, "scenery alone satisfies the plain one"
    torch.testing.assert_close(changes(list(moving + scenery))[0], changes(list(moving))[0], rtol=1e-4, atol=1e-4)


def test_the_formula():
    torch.manual_seed(0)
    views = [torch.randn(6, 2) for _ in range(4)]
    rows = [(views[t][b] - sum(v[b] for v in views) / 4) * (4 / 3) ** 0.5 for t in range(4) for b in range(6)]
    torch.testing.assert_close(
        Changes(VarianceCovarianceLoss())(views)[0], VarianceCovarianceLoss()([torch.stack(rows)])[0]
    )
    wide = torch.randn(2, 2000, 3)
    assert Changes(VarianceCovarianceLoss(1.0, 0.0))(list(wide))[0] < 0.05, "independent moments keep their variance"
    with pytest.raises(UserError, match="two moments"):
        Changes(VarianceCovarianceLoss())(views[:1])

"""What stands still does not count, and what changes does."""

import pytest
import torch

from jepa_pretrain.contracts import UserError
from jepa_pretrain.objectives.changes import Both, Changes
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
    common = torch.arange(4.0)[:, None, None].expand(4, 6, 2) * 5  # the same in all clips
    apart = Changes(VarianceCovarianceLoss(), joined=False)
    torch.testing.assert_close(apart(list(torch.stack(views) + common))[0], apart(views)[0], rtol=1e-4, atol=1e-4)
    assert Changes(VarianceCovarianceLoss())(list(torch.stack(views) + common))[0] > 2 * apart(views)[0]
    wide = torch.randn(2, 2000, 3)
    assert Changes(VarianceCovarianceLoss(1.0, 0.0))(list(wide))[0] < 0.05, "independent moments keep their variance"
    with pytest.raises(UserError, match="two moments"):
        Changes(VarianceCovarianceLoss())(views[:1])


def test_both_want_what_either_wants():
    torch.manual_seed(0)
    spread = VarianceCovarianceLoss(1.0, 0.0)
    both = Both(spread, Changes(spread))
    moving, scenery = torch.randn(5, 512, 3), torch.randn(1, 512, 3).expand(5, -1, -1)
    assert both(list(moving))[0] < 0.1 < 0.9 < both(list(scenery))[0]
    loss, terms = both(list(moving + scenery))
    torch.testing.assert_close(loss, spread(list(moving + scenery))[0] + Changes(spread)(list(moving + scenery))[0])
    assert {"variance", "changes_variance"} <= set(terms)

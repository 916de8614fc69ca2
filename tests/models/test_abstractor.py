"""C-Abstractors: a square of tokens, local, blind to what was dropped, and one image of a batch alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ablab.contract.failure import ConfigError
from ablab.models.abstractor import CAbstractor, PyramidCAbstractor, masked_pool


def test_tokens_are_a_square_of_the_model_s_width():
    torch.manual_seed(0)
    module = CAbstractor(width=12, out=20, positions=64, queries=16, hidden=8)
    x = torch.randn(3, 64, 12)
    tokens = module(x, grid=(8, 8))
    assert tokens.shape == (3, 16, 20)
    torch.testing.assert_close(tokens[:1], module(x[:1], grid=(8, 8)))
    with pytest.raises(ConfigError, match="144"):
        CAbstractor(width=12, out=20, positions=64, queries=143)


def test_what_was_dropped_has_no_say():
    torch.manual_seed(1)
    module = CAbstractor(width=6, out=10, positions=36, queries=9)
    x, kept = torch.randn(2, 36, 6), torch.rand(2, 36) > 0.4
    other = torch.where(kept.unsqueeze(-1), x, torch.randn_like(x))
    assert torch.equal(module(x, grid=(6, 6), kept_BN=kept), module(other, grid=(6, 6), kept_BN=kept))


def test_a_masked_pool_is_the_mean_of_what_was_kept():
    torch.manual_seed(2)
    x, kept = torch.randn(1, 3, 4, 6), (torch.rand(1, 1, 4, 6) > 0.5).float()
    kept[..., :2, :3] = 0
    found = masked_pool(x, 2, kept_B1HW=kept)
    for row in range(2):
        for column in range(2):
            cell = (slice(None), slice(None), slice(2 * row, 2 * row + 2), slice(3 * column, 3 * column + 3))
            mask = kept[cell]
            mean = (x[cell] * mask).sum((2, 3)) / mask.sum((2, 3)) if mask.sum() else torch.zeros(1, 3)
            torch.testing.assert_close(found[..., row, column], mean)
    torch.testing.assert_close(masked_pool(x, 2, kept_B1HW=torch.ones_like(kept)), F.adaptive_avg_pool2d(x, 2))


def test_scales_are_fused_each_with_its_own_mask():
    torch.manual_seed(3)
    module = PyramidCAbstractor(widths=(6, 6, 6), out=10, queries=4, hidden=8, depth=1)
    grids = [(2, 2), (4, 4), (8, 8)]
    scales = [torch.randn(2, rows * columns, 6) for rows, columns in grids]
    tokens = module(scales, grids=grids)
    assert tokens.shape == (2, 4, 10)
    kept = [None, torch.rand(2, 16) > 0.5, torch.rand(2, 64) > 0.5]
    changed = [scales[0], *(torch.where(m.unsqueeze(-1), s, s + 9) for s, m in zip(scales[1:], kept[1:], strict=True))]
    assert torch.equal(module(scales, grids=grids, kept=kept), module(changed, grids=grids, kept=kept))
    for place in range(3):
        moved = list(scales)
        moved[place] = moved[place] + torch.randn_like(moved[place])
        assert not torch.allclose(module(moved, grids=grids), tokens)


def test_all_of_it_learns():
    torch.manual_seed(4)
    module = CAbstractor(width=6, out=10, positions=16, queries=4, hidden=5, depth=2)
    module(torch.randn(2, 16, 6), grid=(4, 4)).pow(2).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in module.parameters())

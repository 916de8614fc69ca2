from __future__ import annotations

import pytest
import torch

from ablab.models.dropout import dropout, keep_mask, keep_scale


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_the_share_dropped_is_the_probability(p: float) -> None:
    torch.manual_seed(0)
    mask = keep_mask((1000, 401), p)
    sigma = (p * (1 - p) / mask.numel()) ** 0.5
    assert abs(1 - mask.float().mean().item() - p) < 5 * sigma
    assert keep_scale(p) == pytest.approx(1 / (1 - p), rel=1e-3)


def test_draws_are_independent_of_their_neighbours() -> None:
    torch.manual_seed(0)
    kept = keep_mask((400_000,), 0.3).double() - 0.7
    for lag in range(1, 9):
        correlation = (kept[:-lag] * kept[lag:]).mean() / kept.var()
        assert abs(correlation) < 5 / len(kept) ** 0.5


def test_the_generator_decides() -> None:
    torch.manual_seed(5)
    first = keep_mask((33, 7), 0.2)
    assert not torch.equal(first, keep_mask((33, 7), 0.2))
    torch.manual_seed(5)
    assert torch.equal(first, keep_mask((33, 7), 0.2))


def test_survivors_are_scaled_and_so_are_their_gradients() -> None:
    torch.manual_seed(0)
    x = torch.full((50, 50), 2.0, requires_grad=True)
    y = dropout(x, 0.25, training=True)
    y.sum().backward()
    assert x.grad is not None
    kept = y != 0
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], 2 * keep_scale(0.25)))
    torch.testing.assert_close(x.grad, kept * keep_scale(0.25))


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False)])
def test_nothing_is_dropped_when_off(p: float, training: bool) -> None:
    x = torch.randn(4)
    assert dropout(x, p, training=training) is x

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ablab.models import products
from ablab.models.loss import IGNORE, OwnRows, linear_cross_entropy, token_nats


def problem(n: int = 37, c: int = 24, v: int = 101, *, ignored: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(n, c, generator=generator, requires_grad=True)
    weight = (torch.randn(v, c, generator=generator) * 0.7).requires_grad_()
    targets = torch.randint(0, v, (n,), generator=generator)
    targets[:ignored] = IGNORE
    return hidden, weight, targets


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(hidden @ weight.T, targets, reduction="sum", ignore_index=IGNORE)


@pytest.mark.parametrize("rows", [1, 8, 37, 100, None])
@pytest.mark.parametrize("ignored", [0, 5, 37])
def test_value_and_gradients_equal_the_plain_loss(rows: int | None, ignored: int) -> None:
    hidden, weight, targets = problem(ignored=ignored)
    expected = plain(hidden, weight, targets)
    wanted = torch.autograd.grad(expected * 0.37, (hidden, weight))
    found = linear_cross_entropy(hidden, weight, targets, rows=rows)
    gradients = torch.autograd.grad(found * 0.37, (hidden, weight))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for got, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_extreme_logits_stay_finite_and_exact() -> None:
    hidden = torch.tensor([[300.0, 0.0], [-300.0, 0.0], [0.0, 0.0]], requires_grad=True)
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    targets = torch.tensor([1, 1, 2])
    expected = plain(hidden, weight, targets)
    found = linear_cross_entropy(hidden, weight, targets, rows=2)
    torch.testing.assert_close(found, expected)
    assert torch.isfinite(torch.stack([g.sum() for g in torch.autograd.grad(found, (hidden, weight))])).all()


@pytest.mark.parametrize("matrix_units", [True, False])
def test_bf16_stays_within_its_rounding(matrix_units: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablab.models.products.has_fast_bf16", lambda: matrix_units)
    hidden, weight, targets = problem(n=64, c=64, v=200, ignored=3)
    expected = plain(hidden, weight, targets)
    wanted = torch.autograd.grad(expected, (hidden, weight))
    with torch.autocast("cpu", torch.bfloat16):
        found = linear_cross_entropy(hidden, weight, targets, rows=16)
        gradients = torch.autograd.grad(found, (hidden, weight))
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=0)
    for got, want in zip(gradients, wanted, strict=True):
        assert got.dtype == torch.float32
        error = (got - want).norm() / want.norm()
        assert error < (0.02 if matrix_units else 1e-5)


def test_the_padding_of_a_narrow_weight_takes_no_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablab.models.products.has_fast_bf16", lambda: True)
    hidden, weight = torch.zeros(4, 8), torch.zeros(65, 8)
    with torch.autocast("cpu", torch.bfloat16):
        nats = token_nats(hidden, weight, torch.tensor([0, 5, 64, 64]))
    torch.testing.assert_close(nats, torch.full((4,), torch.tensor(65.0).log().item()))


def test_nats_of_tokens_equal_the_plain_loss_without_reduction() -> None:
    hidden, weight, targets = problem()
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="none", ignore_index=IGNORE)
    found = token_nats(hidden, weight, targets, rows=8)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)


def test_a_frozen_weight_or_hidden_gets_no_gradient() -> None:
    hidden, weight, targets = problem()
    linear_cross_entropy(hidden, weight.detach(), targets).backward()
    assert hidden.grad is not None
    hidden, weight, targets = problem()
    linear_cross_entropy(hidden.detach(), weight, targets).backward()
    assert weight.grad is not None


@pytest.mark.parametrize("rows", [4, None])
@pytest.mark.parametrize("frozen", [True, False])
def test_rows_of_its_own_stand_in_place_of_the_weights(rows: int | None, frozen: bool) -> None:
    hidden, weight, targets = problem()
    tokens = torch.tensor([3, 50, 100])
    targets[10:13] = tokens
    own = torch.randn(3, weight.size(1), generator=torch.Generator().manual_seed(4), requires_grad=True)
    if frozen:
        weight = weight.detach()
    logits = (hidden @ weight.T).index_copy(1, tokens, hidden @ own.T)
    expected = F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORE)
    leaves = (hidden, own) if frozen else (hidden, own, weight)
    wanted = torch.autograd.grad(expected * 0.37, leaves)
    found = linear_cross_entropy(hidden, weight, targets, rows=rows, own=OwnRows(tokens=tokens, rows=own))
    gradients = torch.autograd.grad(found * 0.37, leaves)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for got, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("matrix_units", [True, False])
def test_rows_of_its_own_stay_within_the_rounding_of_bf16(matrix_units: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "has_fast_bf16", lambda: matrix_units)
    hidden, weight, targets = problem()
    tokens, frozen = torch.tensor([0, 7]), weight.detach()
    own = torch.randn(2, weight.size(1), generator=torch.Generator().manual_seed(4), requires_grad=True)
    logits = (hidden @ frozen.T).index_copy(1, tokens, hidden @ own.T)
    wanted = torch.autograd.grad(F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORE), (hidden, own))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear_cross_entropy(hidden, frozen, targets, rows=8, own=OwnRows(tokens=tokens, rows=own))
    for got, want in zip(torch.autograd.grad(found, (hidden, own)), wanted, strict=True):
        assert float((got - want).norm() / want.norm()) < 0.02


def test_a_second_backward_pass_is_refused() -> None:
    hidden, weight, targets = problem()
    loss = linear_cross_entropy(hidden, weight, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward"):
        loss.backward()


def test_no_tensor_of_the_size_of_the_full_logits_is_made() -> None:
    hidden, weight, targets = problem(n=512, c=8, v=1000)
    with torch.profiler.profile(profile_memory=True, record_shapes=True) as profile:
        linear_cross_entropy(hidden, weight, targets, rows=32).backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 512 * 1000 * 4


def test_products_are_wide_without_matrix_units(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(2, 2)
    assert products.product_dtype(x) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        monkeypatch.setattr("ablab.models.products.has_fast_bf16", lambda: True)
        assert products.product_dtype(x) == torch.bfloat16
        monkeypatch.setattr("ablab.models.products.has_fast_bf16", lambda: False)
        assert products.product_dtype(x) == torch.float32

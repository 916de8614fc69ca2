from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ablab.models.products import Linear, linear


@pytest.mark.parametrize("matrix_units", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_equals_torchs_within_bf16(
    matrix_units: bool, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablab.models.products.has_fast_bf16", lambda: matrix_units)
    torch.manual_seed(0)
    layer = Linear(48, 32, bias=bias)
    x = torch.randn(3, 5, 48, requires_grad=True)
    leaves = [x, *layer.parameters()]
    wanted = torch.autograd.grad(F.linear(x, layer.weight, layer.bias).square().sum(), leaves)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        assert y.dtype == torch.bfloat16
        assert y.shape == (3, 5, 32)
        found = torch.autograd.grad(y.float().square().sum(), leaves)
    for got, want in zip(found, wanted, strict=True):
        assert got.dtype == want.dtype == torch.float32
        assert (got - want).norm() / want.norm() < 0.02


def test_without_autocast_it_is_torchs_layer_to_the_bit() -> None:
    layer, x = Linear(8, 4), torch.randn(2, 8)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


def test_wide_products_round_less_than_narrow_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    x, weight = torch.randn(64, 512).bfloat16(), torch.randn(512, 512)
    exact = x.double() @ weight.double().T
    errors = []
    for matrix_units in (True, False):
        monkeypatch.setattr("ablab.models.products.has_fast_bf16", lambda units=matrix_units: units)
        with torch.autocast("cpu", torch.bfloat16):
            errors.append((linear(x, weight).double() - exact).norm())
    assert errors[1] < errors[0]


def test_a_frozen_weight_gets_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablab.models.products.has_fast_bf16", lambda: False)
    layer, x = Linear(8, 4).requires_grad_(False), torch.randn(2, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).float().sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(2, 8), rtol=0.02, atol=0.02)

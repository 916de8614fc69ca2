from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ablab.models.attention import _BlockAttention, causal_attention
from ablab.models.dropout import keep_mask, keep_scale

SHAPES = [(2, 3, 7, 8), (1, 2, 128, 16), (2, 1, 300, 8)]


def tensors(shape: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_without_dropout_blocks_equal_torchs_attention(shape: tuple[int, ...]) -> None:
    q, k, v = tensors(shape)
    flat = [x.reshape(-1, *shape[2:]) for x in (q, k, v)]
    found = _BlockAttention.apply(*flat, 0.0).view(shape)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    g = torch.randn(shape)
    for got, want in zip(
        torch.autograd.grad(found, (q, k, v), g), torch.autograd.grad(expected, (q, k, v), g), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_dropout_equals_masked_attention_written_out() -> None:
    """Values and gradients against the textbook formula with the very masks that the blocks drew."""
    shape, p = (2, 2, 200, 8), 0.3
    q, k, v = tensors(shape)
    torch.manual_seed(9)
    found = causal_attention(q, k, v, dropout=p)
    torch.manual_seed(9)
    masks = torch.zeros(4, 200, 200)
    for start in range(0, 200, 128):
        end = min(start + 128, 200)
        masks[:, start:end, :end] = keep_mask((4, end - start, end), p)
    scores = (q @ k.transpose(-1, -2)) / 8**0.5
    weights = scores.masked_fill(torch.ones(200, 200).triu(1).bool(), float("-inf")).softmax(-1)
    expected = (weights * masks.view(2, 2, 200, 200) * keep_scale(p)) @ v
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    g = torch.randn(shape)
    for got, want in zip(
        torch.autograd.grad(found, (q, k, v), g), torch.autograd.grad(expected, (q, k, v), g), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_no_token_sees_a_later_one(dropout: float) -> None:
    q, k, v = (x.detach() for x in tensors((1, 2, 140, 8)))
    torch.manual_seed(4)
    before = causal_attention(q, k, v, dropout=dropout)
    k[:, :, 70:], v[:, :, 70:] = 50.0, 50.0
    torch.manual_seed(4)
    after = causal_attention(q, k, v, dropout=dropout)
    assert torch.equal(before[:, :, :70], after[:, :, :70])
    assert not torch.allclose(before[:, :, 70:], after[:, :, 70:])


@pytest.mark.parametrize("matrix_units", [True, False])
def test_bf16_stays_within_its_rounding(matrix_units: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablab.models.products.has_fast_bf16", lambda: matrix_units)
    q, k, v = tensors((2, 2, 150, 16))
    torch.manual_seed(2)
    expected = torch.autograd.grad(causal_attention(q, k, v, dropout=0.1).square().sum(), (q, k, v))
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16):
        out = causal_attention(q, k, v, dropout=0.1)
        assert out.dtype == torch.bfloat16
    for got, want in zip(torch.autograd.grad(out.float().square().sum(), (q, k, v)), expected, strict=True):
        assert (got.float() - want).norm() / want.norm() < 0.03

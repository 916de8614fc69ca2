"""Causal attention, with dropout of the attention weights at the speed of attention without.

torch's fused CPU kernel has no dropout, and its fallback holds several (B, H, T, T) tensors and draws one random
number an element. Here queries go in blocks: a block sees only the keys up to its end, weights are recomputed in the
backward pass, and what is remembered is one byte an element for the dropout mask. Other devices use torch's kernels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ablab.models.dropout import keep_mask, keep_scale
from ablab.models.products import autocast_dtype, product_dtype

#: Queries of a block: smaller blocks skip more of the masked half, larger ones make better products.
BLOCK = 128


def _future(size: int) -> Tensor:
    """Return what a block of queries must not see of its own keys, bool (size, size)."""
    return torch.ones(size, size, dtype=torch.bool).triu(1)


def _weights(q: Tensor, k: Tensor, start: int, future: Tensor) -> Tensor:
    """Return the causal softmax(q kᵀ), fp32 (BH, b, end), of b queries from `start` on; q comes scaled."""
    scores = torch.bmm(q, k.transpose(1, 2)).float()
    size = q.size(1)
    scores[:, :, start:].masked_fill_(future[:size, :size], float("-inf"))
    return torch.softmax(scores, -1)


class _BlockAttention(torch.autograd.Function):
    """Causal attention over (BH, T, D) with dropout of the weights."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, p: float) -> Tensor:
        dtype = product_dtype(q)
        with torch.autocast("cpu", enabled=False):
            ctx.save_for_backward(q, k, v)
            ctx.dtype, ctx.scale, ctx.keep = dtype, q.size(-1) ** -0.5, keep_scale(p)
            ctx.masks = []
            qs, ks, vs = q.to(dtype) * ctx.scale, k.to(dtype), v.to(dtype)
            out, future = torch.empty_like(q), _future(min(BLOCK, q.size(1)))
            for start in range(0, q.size(1), BLOCK):
                end = min(start + BLOCK, q.size(1))
                weights = _weights(qs[:, start:end], ks[:, :end], start, future)
                mask = keep_mask(weights.shape, p)
                ctx.masks.append(mask)
                out[:, start:end] = torch.bmm(weights.mul_(mask).to(dtype), vs[:, :end]).mul_(ctx.keep)
            return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v = ctx.saved_tensors
        dtype, scale, keep = ctx.dtype, ctx.scale, ctx.keep
        with torch.autocast("cpu", enabled=False):
            qs, ks, vs = q.to(dtype) * scale, k.to(dtype), v.to(dtype)
            g = grads[0].to(dtype) * keep
            future = _future(min(BLOCK, q.size(1)))
            dq, dk, dv = torch.empty_like(qs), torch.zeros_like(ks), torch.zeros_like(vs)
            for index, start in enumerate(range(0, q.size(1), BLOCK)):
                end = min(start + BLOCK, q.size(1))
                mask, gb = ctx.masks[index], g[:, start:end]
                weights = _weights(qs[:, start:end], ks[:, :end], start, future)
                dweights = torch.bmm(gb, vs[:, :end].transpose(1, 2)).float().mul_(mask)
                dscores = torch._softmax_backward_data(dweights, weights, -1, torch.float32).to(dtype)
                dv[:, :end] += torch.bmm(weights.mul_(mask).to(dtype).transpose(1, 2), gb)
                dq[:, start:end] = torch.bmm(dscores, ks[:, :end])
                dk[:, :end] += torch.bmm(dscores.transpose(1, 2), qs[:, start:end])
            return dq.mul_(scale).to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None


def causal_attention(q: Tensor, k: Tensor, v: Tensor, *, dropout: float) -> Tensor:
    """Return softmax(q kᵀ / sqrt(D), causal) v of (B, H, T, D), its weights dropped with probability `dropout`."""
    if q.device.type != "cpu" or dropout == 0.0:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    narrow = autocast_dtype(q)
    if narrow is not None:
        q, k, v = q.to(narrow), k.to(narrow), v.to(narrow)
    flat = [x.reshape(-1, *x.shape[2:]) for x in (q, k, v)]
    result: Tensor = _BlockAttention.apply(*flat, dropout)  # type: ignore[no-untyped-call]
    return result.view_as(q)

"""Dropout with cheap random bits.

On CPU, drawing one random number an element costs more than the layer it regularises. Four 16-bit draws come out of
one 64-bit number here; the probability becomes the nearest multiple of 2⁻¹⁶ and the survivors are scaled by that
very probability, so the expectation is exact. All numbers come from torch's default generator of the device.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_LEVELS = 1 << 16


def _dropped_levels(p: float) -> int:
    """Return how many of the 2¹⁶ levels are dropped."""
    return min(round(p * _LEVELS), _LEVELS - 1)


def keep_scale(p: float) -> float:
    """Return what survivors are multiplied by: one over the probability to be kept."""
    return _LEVELS / (_LEVELS - _dropped_levels(p))


def keep_mask(shape: tuple[int, ...] | torch.Size, p: float) -> Tensor:
    """Return a uint8 CPU tensor, 0 with probability p (rounded to 2⁻¹⁶) and else 1, from the default generator.

    uint8, because products with bool take four times as long on CPU.
    """
    if torch.compiler.is_compiling():  # a compiled graph makes its own cheap numbers
        return (torch.rand(shape) >= _dropped_levels(p) / _LEVELS).to(torch.uint8)
    size = 1
    for extent in shape:
        size *= extent
    bits = torch.empty((size + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    kept = bits.view(torch.int16)[:size] >= _dropped_levels(p) - _LEVELS // 2
    return kept.view(torch.uint8).view(shape)


class _Dropout(torch.autograd.Function):
    """x · mask · scale, remembering one byte an element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        mask = keep_mask(x.shape, p)
        ctx.save_for_backward(mask)
        ctx.scale = keep_scale(p)
        return x.mul(mask).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return grads[0].mul(mask).mul_(ctx.scale), None


def dropout(x: Tensor, p: float, *, training: bool) -> Tensor:
    """Return x with elements zeroed with probability p and the others scaled to keep the expectation."""
    if not training or p == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    result: Tensor = _Dropout.apply(x, p)  # type: ignore[no-untyped-call]
    return result

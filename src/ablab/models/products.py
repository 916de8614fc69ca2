"""Linear layers in the arithmetic a processor does well.

bf16 products pay only where the processor has matrix units for them (AMX, GPUs). Without, a bf16 product runs at
about half the speed of the same product in fp32; there, under bf16 autocast, activations are kept in bf16 as usual
but multiplied in fp32, which is faster and rounds less.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def has_fast_bf16() -> bool:
    """Whether this machine's processor has matrix units for bf16."""
    return bool(torch.cpu._is_amx_tile_supported())


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """Return the autocast type in force for the tensor's device, None without autocast."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def product_dtype(tensor: Tensor) -> torch.dtype:
    """Return the type in which products with `tensor` are computed here."""
    dtype = autocast_dtype(tensor) or tensor.dtype
    if tensor.device.type == "cpu" and dtype == torch.bfloat16 and not has_fast_bf16():
        return torch.float32
    return dtype


class _WideLinear(torch.autograd.Function):
    """x Wᵀ + b with x and the result in a narrow type and the product in the type of W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            ctx.save_for_backward(x, weight)
            rows = x.reshape(-1, x.size(-1)).to(weight.dtype)
            product = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
            return product.to(x.dtype).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            g = grads[0].reshape(-1, weight.size(0)).to(weight.dtype)
            dx = (g @ weight).to(x.dtype).view_as(x) if ctx.needs_input_grad[0] else None
            dw = g.T @ x.reshape(-1, x.size(-1)).to(weight.dtype) if ctx.needs_input_grad[1] else None
            db = g.sum(0) if ctx.needs_input_grad[2] else None
            return dx, dw, db


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + b for x of (..., in) and weight of (out, in), in the product type of this machine.

    Under autocast the result is in the autocast type, as with `torch.nn.functional.linear`.
    """
    narrow = autocast_dtype(x)
    if narrow is None or weight.dtype != torch.float32 or product_dtype(x) == narrow:
        return F.linear(x, weight, bias)
    result: Tensor = _WideLinear.apply(x.to(narrow), weight, bias)  # type: ignore[no-untyped-call]
    return result


class Linear(nn.Linear):
    """`torch.nn.Linear` computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b for x of (..., in_features)."""
        return linear(x, self.weight, self.bias)

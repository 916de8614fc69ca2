"""A feed-forward layer in blocks of rows that stay in a processor's cache: linear, activation, linear.

Between the two products stands a tensor of four times the width, and on a processor its way to memory and back costs as
much as the products: activation, its backward pass and each product go over all of it. Here a block of rows goes
through the whole layer, forward and backward, before the next; only the first product's result is kept. It is used for
fp32 on processors; under autocast, on other devices and where a part has been wrapped (an adapter), the layer's own
modules run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: Numbers of the wide tensor in a block: half a mebibyte in fp32, of which a block needs two.
BLOCK = 1 << 17
#: Slope of the sigmoid of CLIP's approximation of GELU.
_QUICK = 1.702


class FeedForward(nn.Module):
    """CLIP's feed-forward layer in blocks, with its modules under the names that transformers gives them.

    Args:
        fc1, fc2: the linear layers.
        activation_fn: quick GELU.
    """

    def __init__(self, *, fc1: nn.Module, fc2: nn.Module, activation_fn: nn.Module) -> None:
        super().__init__()
        self.activation_fn, self.fc1, self.fc2 = activation_fn, fc1, fc2

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return fc2(quick_gelu(fc1(x))) of (..., width)."""
        if type(self.fc1) is nn.Linear and type(self.fc2) is nn.Linear:
            return feed_forward(hidden_states, self.fc1, self.fc2)
        # An adapter stands around one of them.
        out: Tensor = self.fc2(self.activation_fn(self.fc1(hidden_states)))
        return out


def use_blocks(model: nn.Module) -> nn.Module:
    """Replace the feed-forward layers of a CLIP tower by ones in blocks, in place; weights and their names stay."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if _is_quick(child):
                setattr(module, name, FeedForward(**dict(child.named_children())))
    return model


def _is_quick(module: nn.Module) -> bool:
    """Whether a module is linear, quick GELU, linear and nothing else."""
    parts = dict(module.named_children())
    return (
        type(module).__name__ == "CLIPMLP"
        and parts.keys() == {"fc1", "fc2", "activation_fn"}
        and type(parts["activation_fn"]).__name__ == "QuickGELUActivation"
    )


def feed_forward(x: Tensor, first: nn.Linear, second: nn.Linear) -> Tensor:
    """Return second(z sigmoid(1.702 z)) with z = first(x), (..., out), for x (..., in)."""
    if _blockwise(x, first.weight):
        out: Tensor = _Layer.apply(x, first.weight, first.bias, second.weight, second.bias)  # type: ignore[no-untyped-call]  # torch has no types here
        return out
    z = first(x)
    found: Tensor = second(z * torch.sigmoid(_QUICK * z))
    return found


def _blockwise(x: Tensor, weight: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def _linear(bias: Tensor | None, rows: Tensor, weight: Tensor, *, alpha: float, beta: float, out: Tensor) -> None:
    """Write alpha rows weight^T + beta bias."""
    if bias is None:
        out.addmm_(rows, weight.T, alpha=alpha, beta=0)
    else:
        torch.addmm(bias, rows, weight.T, alpha=alpha, beta=beta, out=out)


class _Layer(torch.autograd.Function):
    """Both products and the activation, a block of rows at a time.

    z sigmoid(c z) is silu(c z) / c: the first product gives u = c z, the second divides by c, and both factors are
    those that a product takes along. The derivative of silu(c z) / c at z is that of silu at u.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, first: Tensor, first_bias: Tensor | None, second: Tensor, second_bias: Tensor | None
    ) -> Tensor:
        rows, keep = x.reshape(-1, x.size(-1)), any(ctx.needs_input_grad)
        step = max(1, BLOCK // first.size(0))
        y = rows.new_empty((min(step, len(rows)), first.size(0)))
        wide = rows.new_empty((len(rows), first.size(0))) if keep else torch.empty_like(y)
        out = rows.new_empty((len(rows), second.size(0)))
        for low in range(0, len(rows), step):
            part = rows[low : low + step]
            u = wide[low : low + step] if keep else wide[: len(part)]
            _linear(first_bias, part, first, alpha=_QUICK, beta=_QUICK, out=u)
            torch.ops.aten.silu.out(u, out=y[: len(part)])
            _linear(second_bias, y[: len(part)], second, alpha=1 / _QUICK, beta=1, out=out[low : low + step])
        if keep:
            ctx.save_for_backward(rows, wide, first, second)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, wide, first, second = ctx.saved_tensors
        above = gradients[0].reshape(-1, second.size(0))
        wants_x, wants_first, wants_first_bias, wants_second, wants_second_bias = ctx.needs_input_grad
        of_x = torch.empty_like(rows) if wants_x else None
        of_first = torch.zeros_like(first) if wants_first else None
        of_bias = first.new_zeros(first.size(0)) if wants_first_bias else None
        of_second = torch.zeros_like(second) if wants_second else None
        step = max(1, BLOCK // first.size(0))
        blocks, ones = rows.new_empty((2, min(step, len(rows)), first.size(0))), rows.new_ones(min(step, len(rows)))
        for low in range(0, len(rows), step):
            span = slice(low, low + step)
            g, u = above[span], wide[span]
            y, back = blocks[:, : len(g)]
            if of_second is not None:
                torch.ops.aten.silu.out(u, out=y)
                of_second.addmm_(g.T, y, alpha=1 / _QUICK)
            torch.mm(g, second, out=back)
            torch.ops.aten.silu_backward.grad_input(back, u, grad_input=back)
            if of_x is not None:
                torch.mm(back, first, out=of_x[span])
            if of_first is not None:
                of_first.addmm_(back.T, rows[span])
            if of_bias is not None:
                of_bias.addmv_(back.T, ones[: len(g)])
        of_x = None if of_x is None else of_x.view(*gradients[0].shape[:-1], -1)
        return of_x, of_first, of_bias, of_second, above.sum(0) if wants_second_bias else None

"""Cross-entropy of a linear output head without ever holding the full logits.

Full logits are tokens x vocabulary: 785 MiB in fp32 for 4096 tokens and GPT-2's vocabulary, several times over in a
plain loss. Here the tokens go in chunks; each chunk's logits become its loss and, in place, its gradient, which is at
once multiplied into the gradients of hidden states and weight. Nothing but those two gradients is left for the
backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ablab.models.products import product_dtype

IGNORE = -100

#: Logits of a chunk: 2²⁴ elements are 64 MiB in fp32.
CHUNK_ELEMENTS = 1 << 24


def chunk_rows(vocabulary: int) -> int:
    """Return the tokens of a chunk for a vocabulary."""
    return max(CHUNK_ELEMENTS // vocabulary, 16)


@dataclass(frozen=True, kw_only=True)
class OwnRows:
    """Rows of the head that train in place of the frozen ones: those of tokens that were added to a vocabulary.

    Args:
        tokens: int64 (K,), their places among the rows of the head.
        rows: (K, C).
    """

    tokens: Tensor
    rows: Tensor


def _padded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weight in `dtype`, with zero rows up to a multiple of 64 where it has to be copied anyway.

    Products of an aligned size are up to 1.5 times as fast, and the copy is made once a call, not once a chunk.
    """
    if weight.dtype == dtype:
        return weight
    rows = -(-weight.size(0) // 64) * 64
    copy = weight.new_empty((rows, weight.size(1)), dtype=dtype)
    copy[: weight.size(0)] = weight
    copy[weight.size(0) :] = 0
    return copy


def _softmax(logits: Tensor, targets: Tensor, probabilities: Tensor) -> Tensor:
    """Fill `probabilities` with softmax(logits) and return the nats of each target (0 where ignored), fp32 (n,).

    The log of the normaliser is max - log softmax(max): exact to fp32's relative precision, and free of a second pass.
    """
    valid = targets != IGNORE
    index = targets.clamp_min(0).unsqueeze(1)
    top, where = logits.max(dim=1, keepdim=True)
    torch.softmax(logits, 1, out=probabilities)
    normalizer = top - probabilities.gather(1, where).log_()
    return (normalizer - logits.gather(1, index)).squeeze(1).mul_(valid)


class _Scratch:
    """Buffers of one chunk, reused by all chunks of a call: fresh pages cost more than the arithmetic on them."""

    def __init__(self, rows: int, vocabulary: int, weight: Tensor, own: OwnRows | None = None) -> None:
        device = weight.device
        self.own = own
        self.product = torch.empty((rows, weight.size(0)), dtype=weight.dtype, device=device)
        narrow = weight.dtype != torch.float32 or weight.size(0) != vocabulary
        self.logits = torch.empty((rows, vocabulary), device=device) if narrow else self.product
        self.probabilities = torch.empty((rows, vocabulary), device=device)
        self.vocabulary = vocabulary

    def compute(self, hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fp32 logits of a chunk and the buffer for their softmax."""
        rows = hidden.size(0)
        product = torch.mm(hidden, weight.T, out=self.product[:rows])
        if self.logits is not self.product:
            self.logits[:rows].copy_(product[:, : self.vocabulary])
        if self.own is not None:
            replaced = torch.mm(hidden, self.own.rows.T).to(self.logits.dtype)
            self.logits[:rows].index_copy_(1, self.own.tokens, replaced)
        return self.logits[:rows], self.probabilities[:rows]


def _accumulate(
    probabilities: Tensor,
    targets: Tensor,
    hidden: Tensor,
    weight: Tensor,
    scratch: _Scratch,
    dweight: Tensor | None,
    down: Tensor | None,
) -> Tensor:
    """Turn the chunk's softmax into its gradient, add to the gradients of weights, return that of the hidden states."""
    valid = (targets != IGNORE).unsqueeze(1)
    gradient = probabilities.scatter_add_(
        1, targets.clamp_min(0).unsqueeze(1), -torch.ones_like(valid, dtype=torch.float32)
    )
    # The question costs less than the product it mostly spares; a traced graph cannot ask it.
    if torch.compiler.is_compiling() or not bool(valid.all()):
        gradient.mul_(valid)
    if scratch.logits is not scratch.product:
        narrow = scratch.product[: hidden.size(0)]
        narrow[:, : scratch.vocabulary].copy_(gradient)
        narrow[:, scratch.vocabulary :] = 0
        gradient = narrow
    through_own: Tensor | None = None
    if scratch.own is not None:
        of_own = gradient.index_select(1, scratch.own.tokens)
        gradient.index_fill_(1, scratch.own.tokens, 0)
        through_own = torch.mm(of_own, scratch.own.rows)
        if down is not None:
            down += torch.mm(of_own.T, hidden)
    if dweight is not None:
        if gradient.dtype == dweight.dtype:
            dweight.addmm_(gradient.T, hidden)
        else:
            dweight += torch.mm(gradient.T, hidden)[: dweight.size(0)]
    through = torch.mm(gradient, weight)
    return through if through_own is None else through.add_(through_own)


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of nats; the gradients are made in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        rows: int,
        tokens: Tensor | None,
        own: Tensor | None,
    ) -> Tensor:
        dtype = product_dtype(hidden)
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        wants_own = own is not None and ctx.needs_input_grad[5]
        with torch.autocast(hidden.device.type, enabled=False):
            cast = _padded(weight, dtype)
            replaced = None if own is None or tokens is None else OwnRows(tokens=tokens, rows=own.to(dtype))
            scratch = _Scratch(min(rows, hidden.size(0)), weight.size(0), cast, replaced)
            dhidden = torch.empty_like(hidden) if wants_hidden or wants_weight or wants_own else None
            dweight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
            down = torch.zeros_like(own, dtype=torch.float32) if own is not None and wants_own else None
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            for start in range(0, hidden.size(0), rows):
                part, chunk = hidden[start : start + rows].to(dtype), targets[start : start + rows]
                logits, probabilities = scratch.compute(part, cast)
                total += _softmax(logits, chunk, probabilities).sum()
                if dhidden is not None:
                    dhidden[start : start + rows] = _accumulate(
                        probabilities, chunk, part, cast, scratch, dweight, down
                    )
        ctx.gradients = (dhidden if wants_hidden else None, dweight, down)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, Tensor | None]:
        if ctx.gradients is None:
            raise RuntimeError("linear_cross_entropy keeps its gradients for one backward pass")
        (dhidden, dweight, down), ctx.gradients = ctx.gradients, None
        for gradient in (dhidden, dweight, down):
            if gradient is not None:
                gradient.mul_(grads[0])
        return dhidden, dweight, None, None, None, down


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, rows: int | None = None, own: OwnRows | None = None
) -> Tensor:
    """Return the summed cross-entropy, in nats, of softmax(hidden weightᵀ) at the targets.

    Args:
        hidden: (N, C).
        weight: (V, C), the output head.
        targets: int64 (N,); -100 is ignored.
        rows: tokens of a chunk; None chooses by the vocabulary.
        own: rows of the head that stand in place of the weight's, which then have no gradient.

    Returns:
        fp32 scalar. It supports one backward pass and no second derivative.
    """
    rows = rows or chunk_rows(weight.size(0))
    tokens, values = (None, None) if own is None else (own.tokens, own.rows)
    result: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, rows, tokens, values)  # type: ignore[no-untyped-call]
    return result


@torch.no_grad()
def token_nats(hidden: Tensor, weight: Tensor, targets: Tensor, *, rows: int | None = None) -> Tensor:
    """Return the cross-entropy of each target in nats, fp32 (N,), 0 where ignored; arguments as above."""
    rows = rows or chunk_rows(weight.size(0))
    dtype = product_dtype(hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        cast = _padded(weight, dtype)
        scratch = _Scratch(min(rows, max(hidden.size(0), 1)), weight.size(0), cast)
        parts = []
        for start in range(0, hidden.size(0), rows):
            logits, probabilities = scratch.compute(hidden[start : start + rows].to(dtype), cast)
            parts.append(_softmax(logits, targets[start : start + rows], probabilities))
        return torch.cat(parts) if parts else torch.zeros(0, device=hidden.device)

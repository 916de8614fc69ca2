"""MaxSim between sets of vectors, in blocks: sum over query vectors of the largest product with a passage vector.

    s(q, p) = sum over i valid of max over j valid of <q_i, p_j>          (Khattab & Zaharia 2020, arXiv 2004.12832)

The naive product of B queries with N passages of Q and P vectors holds B x N x Q x P numbers. Here it is computed in
blocks of passages, and only the place of each maximum is kept for the backward pass: one byte a query vector and
passage, 1/4P of the naive tensor. What a loss does with the scores is `ablab.models.contrastive`'s.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: Numbers of one block of products; 2^22 in fp32 are 16 MiB.
BLOCK = 1 << 22


def maxsim(
    queries: Tensor,
    passages: Tensor,
    *,
    query_mask: Tensor | None = None,
    passage_mask: Tensor | None = None,
    block: int = BLOCK,
) -> Tensor:
    """Return the scores of all queries with all passages, fp32 (B, N), differentiable in both.

    A masked passage vector cannot be a maximum, a masked query vector adds nothing. A passage without any valid
    vector scores -inf with every query that has one.

    Args:
        queries: (B, Q, D).
        passages: (N, P, D), P at most 32,767.
        query_mask: bool (B, Q), True where a vector counts; None counts all.
        passage_mask: bool (N, P), the same.
        block: numbers of one block of products; the result does not depend on it.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check(queries, passages, query_mask, passage_mask)
    with torch.autocast(queries.device.type, enabled=False):
        return _scores(queries, passages, query_mask, passage_mask, block)


def _scores(
    queries: Tensor, passages: Tensor, query_mask: Tensor | None, passage_mask: Tensor | None, block: int
) -> Tensor:
    if queries.size(1) == 1 and passages.size(1) == 1 and query_mask is None and passage_mask is None:
        return queries[:, 0].float() @ passages[:, 0].float().T
    scores: Tensor = _MaxSim.apply(queries, passages, query_mask, passage_mask, block)  # type: ignore[no-untyped-call]  # torch has no types here
    return scores


def _check(queries: Tensor, passages: Tensor, query_mask: Tensor | None, passage_mask: Tensor | None) -> None:
    if queries.ndim != 3 or passages.ndim != 3 or queries.size(2) != passages.size(2):
        raise ValueError(
            f"expected queries (B, Q, D) and passages (N, P, D), found {tuple(queries.shape)} and "
            f"{tuple(passages.shape)}"
        )
    for name, mask, like in (("query_mask", query_mask, queries), ("passage_mask", passage_mask, passages)):
        if mask is not None and (mask.dtype != torch.bool or mask.shape != like.shape[:2]):
            raise ValueError(f"{name}: expected bool {tuple(like.shape[:2])}, found {mask.dtype} {tuple(mask.shape)}")
    if passages.size(1) > torch.iinfo(torch.int16).max:
        raise ValueError(f"passages have {passages.size(1)} vectors each, at most 32,767 are supported")


def _tiles(rows: int, columns: int, *, block: int, tall: int, wide: int) -> tuple[int, int]:
    """Return how many queries and passages a block takes: as square as the budget allows."""
    queries = max(1, min(rows, int(block**0.5) // tall))
    return queries, max(1, min(columns, block // (queries * tall * wide)))


class _MaxSim(torch.autograd.Function):
    """Scores by blocks; the backward pass scatters each score's gradient to the pair of vectors that made it."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        passages: Tensor,
        query_mask: Tensor | None,
        passage_mask: Tensor | None,
        block: int,
    ) -> Tensor:
        (rows, tall, width), (columns, wide, _) = queries.shape, passages.shape
        flat_q, flat_p = queries.reshape(-1, width), passages.reshape(-1, width)
        keep = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        places = torch.uint8 if wide <= 256 else torch.int16
        chosen = queries.new_empty((rows, tall, columns) if keep else (0,), dtype=places)
        scores = queries.new_empty((rows, columns), dtype=torch.float32)
        few, many = _tiles(rows, columns, block=block, wide=wide, tall=tall)
        for top in range(0, rows, few):
            own = flat_q[top * tall : (top + few) * tall]
            valid = None if query_mask is None else query_mask[top : top + few, :, None]
            for left in range(0, columns, many):
                theirs = flat_p[left * wide : (left + many) * wide]
                products = (own @ theirs.T).view(-1, tall, theirs.size(0) // wide, wide)
                if passage_mask is not None:
                    products = products.masked_fill(~passage_mask[left : left + many], -torch.inf)
                best, place = products.max(dim=-1)
                best = best.float()
                if valid is not None:
                    best = best.masked_fill(~valid, 0.0)
                scores[top : top + few, left : left + many] = best.sum(1)
                if keep:
                    chosen[top : top + few, :, left : left + many] = place.to(places)
        ctx.save_for_backward(queries, passages, query_mask, chosen)
        ctx.block = block
        return scores

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        queries, passages, query_mask, chosen = ctx.saved_tensors
        (gradient,) = gradients
        (rows, tall, width), (columns, wide, _) = queries.shape, passages.shape
        flat_q, flat_p = queries.reshape(-1, width), passages.reshape(-1, width)
        grad_q = torch.zeros_like(flat_q, dtype=torch.float32)
        grad_p = torch.zeros_like(flat_p, dtype=torch.float32)
        few, many = _tiles(rows, columns, block=ctx.block, wide=wide, tall=tall)
        for top in range(0, rows, few):
            own = flat_q[top * tall : (top + few) * tall]
            valid = None if query_mask is None else query_mask[top : top + few, :, None]
            for left in range(0, columns, many):
                theirs = flat_p[left * wide : (left + many) * wide]
                share = gradient[top : top + few, None, left : left + many].expand(-1, tall, -1)
                if valid is not None:
                    share = share.masked_fill(~valid, 0.0)
                place = chosen[top : top + few, :, left : left + many].long()
                weights = own.new_zeros((*place.shape, wide))
                weights.scatter_(3, place[..., None], share[..., None].to(weights.dtype))
                weights = weights.view(own.size(0), theirs.size(0))
                grad_q[top * tall : (top + few) * tall] += _picked(theirs, place, share, weights)
                grad_p[left * wide : (left + many) * wide] += weights.T @ own
        return grad_q.view_as(queries).to(queries.dtype), grad_p.view_as(passages).to(passages.dtype), None, None, None


def _picked(vectors: Tensor, place: Tensor, share: Tensor, weights: Tensor) -> Tensor:
    """Return the sums of the passages' vectors at the maxima, weighted: `weights` @ vectors, of which most are zeros.

    A processor reads only the vectors that were chosen; for a GPU the dense product is as fast.
    """
    if vectors.device.type != "cpu" or vectors.dtype != torch.float32:
        return weights @ vectors
    (_, _, columns), wide = place.shape, len(vectors) // place.size(2)
    rows = (place + wide * torch.arange(columns)).view(-1, columns)
    return F.embedding_bag(rows, vectors, per_sample_weights=share.reshape(-1, columns).float(), mode="sum")

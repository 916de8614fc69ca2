"""The contrastive loss over a matrix of scores: which candidates are positives, cross-entropy in one or two directions.

Candidates are the passages of the whole batch, of all processes. A candidate that is a positive of a query is never
its negative: by id, not by its place in the batch. Gathering over processes is `ablab.models.gathering`'s, scores are
`ablab.models.maxsim`'s.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

#: What a candidate counts as that is a positive of the query but not the one it was drawn with.
Repeats = Literal["positive", "ignored", "negative"]


def positive_mask(positives: Tensor, candidates: Tensor) -> Tensor:
    """Return which candidates are positives of which query, bool (B, N).

    Args:
        positives: int64 (B, K), ids of every query's positives, filled up with -1.
        candidates: int64 (N,), ids of the candidates.
    """
    found = torch.zeros(positives.size(0), candidates.size(0), dtype=torch.bool, device=positives.device)
    for column in positives.unbind(1):
        found |= (column[:, None] == candidates) & (column[:, None] >= 0)
    return found


def cross_entropy(scores: Tensor, own: Tensor, positive: Tensor, *, repeats: Repeats = "positive") -> Tensor:
    """Return the loss of every row in nats, fp32 (B,).

    -1/|T| sum over j in T of log softmax(scores)_j, where T holds the own candidate and, with `repeats="positive"`,
    all other positives (the soft multi-positive target); with "ignored" those leave the softmax; with "negative" they
    count as any other candidate: the false negatives of a loss that knows no ids.

    Args:
        scores: (B, N).
        own: int64 (B,), the column each row was drawn with.
        positive: bool (B, N), all positives; the own ones are added.
        repeats: what the other positives count as.
    """
    scores = scores.float()
    diagonal = torch.zeros_like(positive).scatter_(1, own[:, None], True)
    if repeats == "ignored":
        scores = scores.masked_fill(positive & ~diagonal, -torch.inf)
    target = diagonal | positive if repeats == "positive" else diagonal
    nats = -torch.log_softmax(scores, dim=1)
    weights = target / target.sum(1, keepdim=True)
    # A masked candidate is infinitely unlikely and has no weight: 0 x inf must not become nan.
    return (nats.masked_fill(~target, 0.0) * weights).sum(1)


def first_is_positive(scores: Tensor, own: Tensor, positive: Tensor) -> Tensor:
    """Return whether each row's best candidate is a positive of it, bool (B,): the real in-batch recall at one.

    Of equal scores the first column counts, so that constant scores are right once a batch, as chance is.
    """
    best = scores.argmax(1)
    return (best == own) | positive.gather(1, best[:, None])[:, 0]

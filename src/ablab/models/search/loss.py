"""What a compressed index loses: how much of the exact ranking its own still holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ablab.contract.failure import ConfigError
from ablab.models.search.best import NOTHING, Found
from ablab.models.search.engine import search
from ablab.models.search.files import Index


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """How a compressed ranking differs from the exact one.

    Args:
        k: how deep both were searched.
        queries: how many were asked.
        overlap: mean share of the exact best k that the compressed best k hold (recall@k of the exact list).
        first: share of queries whose first passage is the same.
        bytes: of the compressed index, as a share of the exact one in fp32.
        score_error: mean absolute difference of the scores of passages that both found.
    """

    k: int
    queries: int
    overlap: float
    first: float
    bytes: float
    score_error: float


def state_loss(index: Index, exact: Index, queries: Tensor, *, k: int = 10, query_mask: Tensor | None = None) -> Loss:
    """Return what `index` loses of `exact` for these queries, and write it into its `index.json`.

    Raises:
        ConfigError: the two hold different pools, or there are no queries.
    """
    if index.passages != exact.passages or not len(queries):
        raise ConfigError(f"{index.folder} and {exact.folder} hold different pools, or no query was given")
    ours = search(index, queries, k=k, query_mask=query_mask)
    theirs = search(exact, queries, k=k, query_mask=query_mask)
    full = 4 * exact.passages * exact.vectors * exact.width
    loss = compare(ours, theirs, size=index.bytes / full)
    index.note(loss=asdict(loss))
    return loss


def compare(ours: Found, exact: Found, *, size: float) -> Loss:
    """Return how one ranking differs from the exact one; `size` is the share of bytes."""
    same = (ours.ids[:, :, None] == exact.ids[:, None, :]) & (exact.ids != NOTHING)[:, None, :]
    wanted = (exact.ids != NOTHING).sum().clamp_min(1)
    both = same.nonzero(as_tuple=True)
    errors = (ours.scores[both[0], both[1]] - exact.scores[both[0], both[2]]).abs()
    return Loss(
        k=ours.ids.size(1),
        queries=len(ours.ids),
        overlap=float(same.sum() / wanted),
        first=float((ours.ids[:, 0] == exact.ids[:, 0]).float().mean()),
        bytes=size,
        score_error=float(errors.mean()) if len(errors) else float(torch.nan),
    )

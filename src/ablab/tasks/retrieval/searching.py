"""Encoding rows of queries and passages in batches, and exact search over a pool as it is encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ablab.contract.context import Context
from ablab.contract.failure import StopRequested
from ablab.models.retriever import Retriever, Role
from ablab.models.search.best import Best, Found
from ablab.models.search.engine import add_shard
from ablab.models.search.shards import ExactShard, Queries, to_tiles
from ablab.tasks.retrieval.batches import Items

#: Passages whose scores with all queries are taken at once.
_AT_ONCE = 1024
Row = Mapping[str, Any]
#: Changes a row before it is encoded (a probe takes text or image away).
Change = Callable[[Row], Row]


@torch.no_grad()
def encode(
    model: Retriever,
    items: Items,
    role: Role,
    rows: Iterator[Row],
    *,
    total: int,
    batch: int,
    context: Context,
    change: Change | None = None,
) -> Iterator[Tensor]:
    """Yield the vectors of rows, fp32 (n, vectors, width) on the model's device, `batch` at a time.

    Raises:
        StopRequested: a stop was asked for.
    """
    device = next(model.parameters()).device
    held: list[Row] = []
    for done, row in enumerate(rows, start=1):
        held.append(row if change is None else change(row))
        if len(held) == batch or done == total:
            if context.stop_requested():
                raise StopRequested("stopped while encoding")
            tensors = items.tensors(held, sees=model.sees[role])
            yield model.encode(role, {name: value.to(device) for name, value in tensors.items()}).float()
            context.progress(done, total, unit="passages" if role == "passage" else "queries")
            held = []


def encode_queries(
    model: Retriever, items: Items, rows: Sequence[Row], *, batch: int, context: Context, change: Change | None = None
) -> Tensor:
    """Return the vectors of all queries, (Q, vectors, width)."""
    parts = encode(model, items, "query", iter(rows), total=len(rows), batch=batch, context=context, change=change)
    return torch.cat(list(parts))


def encode_pool(
    model: Retriever,
    items: Items,
    pool: npt.NDArray[np.int64],
    *,
    batch: int,
    context: Context,
    change: Change | None = None,
) -> Iterator[Tensor]:
    """Yield the vectors of the passages of a pool, in its order."""
    rows = (items.pairs.passages[int(row)] for row in pool)
    return encode(model, items, "passage", rows, total=len(pool), batch=batch, context=context, change=change)


@torch.no_grad()
def search_exactly(queries: Tensor, passages: Iterator[Tensor], *, k: int) -> Found:
    """Return the best k of a pool whose vectors come in parts; no more than one part's scores are held."""
    best, asked = Best(len(queries), k, device=queries.device), Queries(vectors=queries)
    first, held, count = 0, list[Tensor](), 0

    def score() -> None:
        nonlocal first, held, count
        together = torch.cat(held)
        add_shard(best, ExactShard(to_tiles(together), len(together)), asked, first)
        first, held, count = first + len(together), [], 0

    for part in passages:
        held.append(part)
        count += len(part)
        if count >= _AT_ONCE:
            score()
    if held:
        score()
    return best.found()

"""Search an index of any kind: shard by shard, so that no more than one of them and its scores are in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from ablab.contract.failure import ConfigError, DataError
from ablab.models.search.best import Best, Found
from ablab.models.search.files import Index
from ablab.models.search.shards import AnyShard, BoundedShard, Queries

#: Queries whose scores with a shard are held at once: 4 MiB for a thousand passages.
GROUP = 1024


@torch.no_grad()
def search(
    index: Index,
    queries: Tensor,
    *,
    k: int,
    query_mask: Tensor | None = None,
    device: torch.device | str = "cpu",
    group: int = GROUP,
) -> Found:
    """Return the best k passages of each query.

    Args:
        index: what is searched.
        queries: (Q, T, D), or (Q, D) for one vector each.
        k: how many; places beyond the pool's size hold `NOTHING`.
        query_mask: bool (Q, T), True where a vector counts.
        device: where products are computed.
        group: queries in memory at once; the pool is read again for each group.

    Raises:
        ConfigError: the queries do not fit the index.
        DataError: a query is not finite, or a file of the index is damaged.
    """
    queries = queries[:, None] if queries.ndim == 2 else queries
    if queries.ndim != 3 or queries.size(2) != index.width:
        raise ConfigError(
            f"{index.folder}: holds vectors of {index.width} numbers; the queries have the shape "
            f"{tuple(queries.shape)}: encode them with the model that made the index"
        )
    if k < 1:
        raise ConfigError(f"k is {k}; ask for at least one passage")
    queries = queries.float()
    if query_mask is not None:
        queries = queries * query_mask[..., None]
    if not torch.isfinite(queries).all():
        raise DataError(f"query {int((~queries.isfinite()).flatten(1).any(1).nonzero()[0])} is not finite")
    parts = [_search(index, part.to(device), k=k) for part in queries.split(group)]
    return Found(
        ids=torch.cat([part.ids for part in parts]) if parts else torch.zeros((0, k), dtype=torch.int64),
        scores=torch.cat([part.scores for part in parts]) if parts else torch.zeros((0, k)),
    )


def _search(index: Index, vectors: Tensor, *, k: int) -> Found:
    queries = Queries(vectors=vectors)
    best = Best(len(vectors), k, device=vectors.device)
    first = 0
    for shard in index.shards(device=vectors.device):
        add_shard(best, shard, queries, first)
        first += shard.passages
    return best.found()


def add_shard(best: Best, shard: AnyShard, queries: Queries, first: int) -> None:
    """Take a shard, whose first passage has the position `first`, into the best."""
    if isinstance(shard, BoundedShard):
        best.add(_pruned(best, shard, queries), first)
    else:
        best.add(shard.scores(queries), first)


def _pruned(best: Best, shard: BoundedShard, queries: Queries) -> Tensor:
    """Return exact scores (Q, passages) of all passages that may be among the best, -inf for the others.

    The k that look best are scored first: their exact scores raise the bar that the others have to reach.
    """
    guessed, slack = shard.bounds(queries)
    scores = torch.full_like(guessed, -torch.inf)
    likely = guessed.topk(min(best.k, shard.passages), dim=1).indices
    for row, places in enumerate(likely):
        scores[row, places] = shard.exact(queries.vectors[row], places)
    bar = torch.cat([best.scores, scores.gather(1, likely)], 1).topk(best.k, dim=1).values[:, -1:]
    left = (guessed + slack >= bar) & (scores == -torch.inf)
    for row in left.any(1).nonzero().flatten().tolist():
        places = left[row].nonzero().flatten()
        scores[row, places] = torch.cat([shard.exact(queries.vectors[row], part) for part in places.split(1024)])
    return scores

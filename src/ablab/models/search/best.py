"""The best k passages of each query, kept while the pool goes by; equal scores rank by position in the pool."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: What stands where fewer than k passages were seen; `ablab.metrics.ranking` knows it too.
NOTHING = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Positions int64 and scores fp32, both (Q, k), by falling score; `NOTHING` and -inf where the pool is smaller."""

    ids: Tensor
    scores: Tensor


class Best:
    """Running top k.

    Args:
        queries: how many.
        k: how many are kept of each.
        device: where scores come from.
    """

    def __init__(self, queries: int, k: int, *, device: torch.device | str = "cpu") -> None:
        self.k = k
        self.ids = torch.full((queries, k), NOTHING, dtype=torch.int64, device=device)
        self.scores = torch.full((queries, k), -torch.inf, device=device)

    def add(self, scores: Tensor, first: int) -> None:
        """Take in the scores (Q, n) of passages first .. first + n - 1, which come after all seen so far.

        A score of -inf means that the passage is no candidate.
        """
        if not scores.numel():
            return
        values, places = top(scores, min(self.k, scores.size(1)))
        every, ids = torch.cat([self.scores, values], 1), torch.cat([self.ids, places + first], 1)
        # Earlier passages stand left, each part is in order already, and the sort is stable.
        self.scores, order = every.sort(dim=1, descending=True, stable=True)
        self.scores = self.scores[:, : self.k].contiguous()
        self.ids = ids.gather(1, order[:, : self.k])
        self.ids = torch.where(torch.isinf(self.scores) & (self.scores < 0), NOTHING, self.ids)

    @property
    def least(self) -> Tensor:
        """The k-th best score of each query so far, (Q,); -inf before there are k."""
        return self.scores[:, -1]

    def found(self) -> Found:
        """Return what was found."""
        return Found(ids=self.ids.cpu(), scores=self.scores.cpu())


def top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of each row and their places, falling; equal ones by place, also where the list is cut."""
    values, places = scores.topk(k, dim=1)
    least = values[:, -1:]
    # topk may take any of those that equal the last one; only rows where some were left out need the slow way.
    cut = (scores == least).sum(1) > (values == least).sum(1)
    if cut.any():
        slow_values, slow_places = scores[cut].sort(dim=1, descending=True, stable=True)
        values[cut], places[cut] = slow_values[:, :k], slow_places[:, :k]
    places, order = places.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, places.gather(1, order)

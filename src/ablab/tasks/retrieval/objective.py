"""The contrastive loss of a batch of encoded queries and passages, over all processes, as sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ablab.models.contrastive import Repeats, cross_entropy, first_is_positive, positive_mask
from ablab.models.gathering import gather, gather_padded
from ablab.models.maxsim import maxsim


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is minimised.

    Args:
        scale: turns scores into logits (a temperature).
        mean: mean over a query's vectors instead of their sum.
        symmetric: also each passage over all queries.
        repeats: what a passage counts as that is a positive of the query but not the drawn one.
        alone: candidates are those of this process alone: of a group that is measured, of which every process has its
            own.
    """

    scale: Callable[[Tensor], Tensor]
    mean: bool = False
    symmetric: bool = False
    repeats: Repeats = "positive"
    alone: bool = False

    def __call__(
        self,
        queries: Tensor,
        passages: Tensor,
        *,
        own: Tensor,
        positives: Tensor,
        negatives: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the sum over this process's queries, in nats, and sums for the log.

        Args:
            queries: (B, Q, D) of this process.
            passages: (B, P, D), the drawn positive of each.
            own: int64 (B,), ids of those passages.
            positives: int64 (B, K), ids of all positives of each query, filled up with -1.
            negatives: mined passages (M, P, D) and their ids (M,), or None.
        """
        everyone, offset = self._gather(passages)
        ids, _ = self._gather(own)
        columns = offset + torch.arange(len(own), device=own.device)
        if negatives is not None:
            mined, _ = self._gather(negatives[0])
            others, _ = self._gather(negatives[1])
            candidates, names = torch.cat([everyone, mined]), torch.cat([ids, others])
        else:
            candidates, names = everyone, ids
        logits = self.logits(queries, candidates)
        known = positive_mask(positives, names)
        total = cross_entropy(logits, columns, known, repeats=self.repeats).sum()
        hits = first_is_positive(logits.detach(), columns, known).sum()
        if self.symmetric:
            total = 0.5 * (total + self._backward(queries, passages, columns, own, positives))
        return total, {"r_at_1": hits.detach()}

    def _gather(self, rows: Tensor) -> tuple[Tensor, int]:
        return (rows, 0) if self.alone else gather(rows)

    def logits(self, queries: Tensor, passages: Tensor) -> Tensor:
        """Return scores / temperature, (B, N)."""
        scores = maxsim(queries, passages)
        return self.scale(scores / queries.size(1) if self.mean else scores)

    def _backward(self, queries: Tensor, passages: Tensor, columns: Tensor, own: Tensor, positives: Tensor) -> Tensor:
        """Return the sum over this process's passages of finding their query among all queries."""
        everyone, _ = self._gather(queries)
        wanted = positives if self.alone else gather_padded(positives, fill=-1)
        scores = maxsim(everyone, passages)
        logits = self.scale(scores / queries.size(1) if self.mean else scores).T
        return cross_entropy(logits, columns, positive_mask(wanted, own).T, repeats=self.repeats).sum()

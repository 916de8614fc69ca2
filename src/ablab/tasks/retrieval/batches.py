"""Splits of prepared pairs as batches: a positive drawn for every query, texts tokenized, images as bytes.

A batch holds for each role ("query", "passage", "negative") what `Retriever.encode` takes, by "<role>.<name>", and of
the passages their ids, by which the loss tells positives from negatives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ablab.contract.seeds import stream_seed
from ablab.data.augmentation import augment
from ablab.data.pairs import Pairs
from ablab.tasks.retrieval.texts import Texts

Ids = npt.NDArray[np.int64]
Sees = tuple[bool, bool]


class Items:
    """Rows of queries or passages as tensors.

    Args:
        pairs: the prepared data.
        texts: the tokenizer.
    """

    def __init__(self, pairs: Pairs, texts: Texts) -> None:
        self.pairs, self.texts = pairs, texts

    def tensors(self, rows: Sequence[Mapping[str, Any]], *, sees: Sees) -> dict[str, Tensor]:
        """Return ids, mask, text, pixels and image of rows; without tokens or pixels where they are not seen."""
        found = {
            "text": torch.tensor([float(row["text"] is not None) for row in rows]),
            "image": torch.tensor([float(row["image"] is not None) for row in rows]),
        }
        if sees[0]:
            found["ids"], found["mask"] = self.texts([row["text"] for row in rows])
        if sees[1]:
            found["pixels"] = torch.from_numpy(self.pairs.pictures.batch([row["image"] for row in rows]))
        return found


class TrainPairs:
    """Queries of a split, each with a positive drawn anew at every step, from the stream `positives`.

    Args:
        items: makes tensors.
        split: which queries; those without a positive have nothing to be drawn and are left out.
        batch: effective batch, by which the sampler `distinct` arranges an epoch.
        sampler: random, or distinct: no two queries of a batch share a positive.
        sees: (text, image) of each role.
        negatives: mined passages of each query, int64 (queries, at least `count`), or None.
        count: how many of them a query brings along.
        augmentation: largest random move of an image, as a share of its side.
    """

    def __init__(
        self,
        items: Items,
        split: str,
        *,
        batch: int,
        sampler: Literal["random", "distinct"],
        sees: Mapping[str, Sees],
        negatives: Ids | None = None,
        count: int = 0,
        augmentation: float = 0.0,
    ) -> None:
        self._items, self._sees = items, sees
        self._queries, self._batch, self._sampler = items.pairs.queries(split), batch, sampler
        self._negatives, self._count, self._augmentation = negatives, count, augmentation
        self._positives: list[list[int]] | None = None
        # Preparing leaves out train queries without a positive; other splits keep them, since an evaluation asks them.
        self._rows: Ids | None = None if split == "train" else items.pairs.with_positives(split)
        self.samples = len(self._queries) if self._rows is None else len(self._rows)

    def order(self, seed: int, epoch: int) -> Ids:
        """Return the queries in the order of an epoch, int64 (samples,)."""
        drawn = np.random.default_rng(stream_seed(seed, "data-order", epoch)).permutation(self.samples)
        if self._sampler == "random":
            return drawn.astype(np.int64)
        if self._positives is None:
            self._positives = [self._query(i)["positives"] for i in range(self.samples)]
        first = -(epoch * self.samples) % self._batch
        return spread_positives(drawn, self._positives, batch=self._batch, first=first)

    def batch(self, ids: Ids, *, seed: int, step: int) -> dict[str, Any]:
        """Return the tensors of these queries, their drawn positives and their negatives."""
        queries = [self._query(int(i)) for i in ids]
        own = [
            row["positives"][stream_seed(seed, "positives", step, int(i)) % len(row["positives"])]
            for i, row in zip(ids, queries, strict=True)
        ]
        found = self._side("query", queries) | self._side("passage", [self._items.pairs.passages[p] for p in own])
        for place, name in enumerate(("query.pixels", "passage.pixels")):
            if self._augmentation and name in found:
                moved = augment(
                    found[name].numpy(), seed=seed, step=2 * step + place, ids=ids, strength=self._augmentation
                )
                found[name] = torch.from_numpy(moved)
        found |= {"own": torch.tensor(own), "positives": padded([row["positives"] for row in queries])}
        if self._negatives is not None and self._count:
            # A query may have fewer; what fills up is another passage's positive, told apart by its id as ever.
            chosen = self._negatives[ids, : self._count]
            chosen = np.where(chosen < 0, np.array(own)[:, None], chosen)
            rows = [self._items.pairs.passages[int(p)] for p in chosen.reshape(-1)]
            side = self._side("negative", rows, as_role="passage")
            found |= {name: value.unflatten(0, chosen.shape) for name, value in side.items()}
            found["negatives"] = torch.from_numpy(chosen)
        return found

    def weight(self, batch: Mapping[str, Any]) -> float:
        """Return the number of queries."""
        return float(len(batch["own"]))

    def _query(self, sample: int) -> dict[str, Any]:
        return self._queries[sample if self._rows is None else int(self._rows[sample])]

    def _side(self, name: str, rows: Sequence[Mapping[str, Any]], *, as_role: str | None = None) -> dict[str, Tensor]:
        tensors = self._items.tensors(rows, sees=self._sees[as_role or name])
        return {f"{name}.{key}": value for key, value in tensors.items()}


class Groups:
    """A split that is measured: whole groups of a batch's size, so that the measure knows no other batch.

    A sample is a group of queries, in their order; the last one may be smaller, and a query alone, which has nothing to
    be told from, is left out.

    Args:
        pairs: as for training; random draws are those of step 0.
        group: queries of a group.
        most: groups at most.
    """

    def __init__(self, pairs: TrainPairs, *, group: int, most: int | None) -> None:
        self._pairs, self._group = pairs, group
        whole, rest = divmod(pairs.samples, group)
        groups = whole + (rest > 1)
        self.samples = groups if most is None else min(groups, most)
        #: Queries of the last, smaller group, and whether a single one was left out.
        self.rest, self.left_out = rest, rest == 1

    def order(self, seed: int, epoch: int) -> Ids:
        """Return the groups as they stand."""
        return np.arange(self.samples, dtype=np.int64)

    def batch(self, ids: Ids, *, seed: int, step: int) -> dict[str, Any]:
        """Return the tensors of these groups' queries, and their sizes as `groups`."""
        spans = [range(int(i) * self._group, min((int(i) + 1) * self._group, self._pairs.samples)) for i in ids]
        rows = np.array([row for span in spans for row in span], dtype=np.int64)
        return self._pairs.batch(rows, seed=seed, step=0) | {"groups": [len(span) for span in spans]}

    def weight(self, batch: Mapping[str, Any]) -> float:
        """Return the number of queries."""
        return self._pairs.weight(batch)


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return lists of ids as int64 (rows, longest), filled up with -1."""
    width = max(map(len, rows), default=0)
    found = torch.full((len(rows), max(1, width)), -1, dtype=torch.int64)
    for place, row in enumerate(rows):
        found[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return found


def spread_positives(drawn: Ids, positives: Sequence[Sequence[int]], *, batch: int, first: int = 0) -> Ids:
    """Return the queries in an order in which, as far as possible, none of a batch share a positive.

    Queries that would repeat one wait for the next batch, and come first there. What is left when only repeats remain
    comes last, in the order drawn.

    Args:
        drawn: a permutation of the queries.
        positives: of each query.
        batch: queries of a batch.
        first: queries that still belong to a batch begun before; 0: a new batch begins.
    """
    fresh, waiting = deque(drawn.tolist()), deque[int]()
    found: list[int] = []
    room, taken = first or batch, set[int]()
    while fresh or waiting:
        place = _next(fresh, waiting, taken, positives, most=4 * batch)
        if place is None:
            # Nothing fits any more: the rest of the batch repeats.
            place = waiting.popleft() if waiting else fresh.popleft()
        found.append(place)
        taken.update(positives[place])
        room -= 1
        if room == 0:
            room, taken = batch, set()
    return np.array(found, dtype=np.int64)


def _next(
    fresh: deque[int], waiting: deque[int], taken: set[int], positives: Sequence[Sequence[int]], *, most: int
) -> int | None:
    """Take the next query that shares nothing with the batch: of those that wait, else of the fresh ones."""
    for index in range(min(len(waiting), most)):
        if taken.isdisjoint(positives[waiting[index]]):
            place = waiting[index]
            del waiting[index]
            return place
    for _ in range(min(len(fresh), most)):
        place = fresh.popleft()
        if taken.isdisjoint(positives[place]):
            return place
        waiting.append(place)
    return None

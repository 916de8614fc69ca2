"""Splits as batches of padded ids: dialogues of similar length in a step, micro-batches within a budget of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ablab.contract.failure import DataError
from ablab.contract.seeds import stream_seed
from ablab.data.bucketing import grouped_order, within_budget
from ablab.models.loss import IGNORE
from ablab.tasks.summarization.tokens import Encoded

#: Samples of a split that is measured whose order is by length, so that their batches hold little padding.
_SORTED = 512


class Pairs:
    """Dialogues with their first summary, as ids; random access, as `ablab.training.task.Data` asks.

    Args:
        rows: encoded rows with targets.
        causal: one sequence of prompt and summary in place of two.
        padding: id that fills up.
        name: of the split.
        batch: samples a step, so that steps hold similar lengths; None groups nothing.
        tokens: most tokens of a micro-batch, padding included; None counts samples only.

    Raises:
        DataError: a row has no target.
    """

    def __init__(
        self,
        rows: Sequence[Encoded],
        *,
        causal: bool,
        padding: int,
        name: str,
        batch: int | None = None,
        tokens: int | None = None,
    ) -> None:
        self.samples = len(rows)
        self._rows, self._causal, self._padding = rows, causal, padding
        self._name, self._batch, self._tokens = name, batch, tokens
        without = [place for place, row in enumerate(rows) if not len(row.target)]
        if without:
            raise DataError(f"{len(without)} rows of {name} have no summary, the first is row {without[0]}")
        self._sources = np.array([len(row.source) for row in rows], dtype=np.int64)
        self._targets = np.array([len(row.target) for row in rows], dtype=np.int64)
        self._lengths = self._sources + self._targets
        self._measured = self._by_length()

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Return all sample ids of an epoch, int64 (samples,)."""
        generator = np.random.default_rng(stream_seed(seed, "data-order", epoch))
        if self._batch is None:
            return generator.permutation(self.samples).astype(np.int64)
        return grouped_order(self._lengths, batch=self._batch, epoch=epoch, generator=generator)

    def batch(self, ids: np.ndarray, *, seed: int, step: int) -> dict[str, Tensor]:
        """Return input_ids, attention_mask (B, S) and labels (B, T; S = T where causal), padded to the longest."""
        rows = [self._rows[int(self._measured[i]) if self._measured is not None else int(i)] for i in ids]
        if self._causal:
            inputs = [np.concatenate([row.source, row.target]) for row in rows]
            labels = [np.concatenate([np.full(len(row.source), IGNORE), row.target]) for row in rows]
        else:
            inputs = [row.source for row in rows]
            labels = [row.target for row in rows]
        width = max(map(len, inputs))
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for row, ids_ in zip(mask, inputs, strict=True):
            row[: len(ids_)] = 1
        return {
            "input_ids": _padded(inputs, self._padding),
            "attention_mask": torch.from_numpy(mask),
            "labels": _padded(labels, IGNORE),
        }

    def weight(self, batch: Mapping[str, Tensor]) -> float:
        """Return the summary tokens of a batch, ends included."""
        return float((batch["labels"] != IGNORE).sum())

    def parts(self, ids: np.ndarray, *, most: int) -> list[np.ndarray]:
        """Cut the samples of a step into micro-batches of at most `most`, within the budget of tokens."""
        return within_budget(ids, self._fitting, self._lengths[ids], most=most)

    def _fitting(self, ids: np.ndarray) -> int:
        """Return how many of these samples fit into the budget together, padded."""
        if self._tokens is None:
            return len(ids)
        counts = np.arange(1, len(ids) + 1)
        if self._causal:
            padded = counts * np.maximum.accumulate(self._lengths[ids])
        else:
            padded = counts * (np.maximum.accumulate(self._sources[ids]) + np.maximum.accumulate(self._targets[ids]))
        return int((padded <= self._tokens).sum())

    def _by_length(self) -> np.ndarray | None:
        """Return the order in which a split that is measured is taken: sorted by length within windows."""
        if self._name == "train":
            return None
        order = [
            low + np.argsort(self._lengths[low : low + _SORTED], kind="stable")
            for low in range(0, self.samples, _SORTED)
        ]
        return np.concatenate(order) if order else np.empty(0, dtype=np.int64)


def _padded(rows: Sequence[np.ndarray], value: int) -> Tensor:
    whole = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for row, ids in zip(whole, rows, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(whole)

"""Splits of a prepared corpus as batches of inputs and targets.

Training takes whole windows in a random order; a split that is measured is taken whole: every token is a target
once, the first one predicted from an end-of-text token and the last window filled up with targets that do not count.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ablab.data.packing import TokenWindows
from ablab.data.shards import Tokens
from ablab.models.loss import IGNORE


class TrainWindows:
    """Windows of the training split; see `TokenWindows`.

    Raises:
        DataError: the split holds not even one window.
    """

    def __init__(self, tokens: Tokens, *, context: int) -> None:
        self._windows = TokenWindows(tokens, context=context, name="train")
        self.samples = self._windows.samples

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Return all window ids in the order of one epoch, int64 (samples,)."""
        return self._windows.order(seed, epoch)

    def batch(self, ids: np.ndarray, *, seed: int, step: int) -> dict[str, Tensor]:
        """Return inputs and targets, int64 (ids, context) each."""
        windows = torch.from_numpy(self._windows.batch(ids))
        return {"inputs": windows[:, :-1], "targets": windows[:, 1:]}

    def weight(self, batch: Mapping[str, Tensor]) -> float:
        """Return the number of targets."""
        return float(batch["targets"].numel())


class WholeSplit:
    """All tokens of a split as targets, in order, in windows without overlap."""

    def __init__(self, tokens: Tokens, *, context: int, end_of_text: int) -> None:
        self.stream = Stream(tokens, end_of_text=end_of_text)
        self.context = context
        self.samples = -(-len(tokens) // context)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Return the window ids as they stand; measuring needs no random order."""
        return np.arange(self.samples, dtype=np.int64)

    def batch(self, ids: np.ndarray, *, seed: int, step: int) -> dict[str, Tensor]:
        """Return inputs and targets, int64 (ids, context) each; targets past the end are ignored ones."""
        spans = [(int(i) * self.context, int(i) * self.context, (int(i) + 1) * self.context) for i in ids]
        return self.stream.batch(spans, width=self.context)

    def weight(self, batch: Mapping[str, Tensor]) -> float:
        """Return the number of targets that count."""
        return float((batch["targets"] != IGNORE).sum())


class Stream:
    """The targets of a split and the inputs they are predicted from: the tokens behind one end-of-text token."""

    def __init__(self, tokens: Tokens, *, end_of_text: int) -> None:
        self.tokens = tokens
        self.end_of_text = end_of_text

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, spans: list[tuple[int, int, int]], *, width: int) -> dict[str, Tensor]:
        """Return inputs and targets, int64 (spans, width), of spans (start, scored, stop) of targets.

        Targets before `scored` and past the end of the split are ignored ones; inputs there are end-of-text.
        """
        inputs = np.full((len(spans), width), self.end_of_text, dtype=np.int64)
        targets = np.full((len(spans), width), IGNORE, dtype=np.int64)
        for row, (start, scored, stop) in enumerate(spans):
            tokens = self.tokens.read(start, stop)
            before = 0 if start else 1
            read = self.tokens.read(max(start - 1, 0), start + len(tokens) - 1)
            inputs[row, before : before + len(read)] = read
            targets[row, scored - start : len(tokens)] = tokens[scored - start :]
        return {"inputs": torch.from_numpy(inputs), "targets": torch.from_numpy(targets)}

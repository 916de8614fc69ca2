"""Windows over the tokens of a split: the samples of language modelling, with random access and no state."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ablab.contract.failure import DataError
from ablab.contract.seeds import stream_seed
from ablab.data.shards import Tokens


class TokenWindows:
    """Windows of context + 1 tokens that overlap by one: inputs are the first `context`, targets the last.

    Window i holds tokens i * context to (i + 1) * context, so every token is a target exactly once, except the very
    first and those after the last whole window (fewer than `context`). Windows run across documents, which end-of-text
    tokens separate.

    Args:
        tokens: tokens of the split.
        context: targets of a window.
        name: of the split, for messages.

    Raises:
        DataError: the split holds not even one window.
    """

    def __init__(self, tokens: Tokens, *, context: int, name: str = "split") -> None:
        self.tokens = tokens
        self.context = context
        self.samples = (len(tokens) - 1) // context
        if self.samples < 1:
            raise DataError(
                f"{name} holds {len(tokens)} tokens, fewer than one window of context {context} + 1: "
                "give it more text (a larger share in data.splits, more files) or take a shorter context",
                file=name,
                row=None,
            )

    def order(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """Return all window ids in the order of one epoch, int64 of shape (samples,): a function of the arguments."""
        key = stream_seed(seed, "data-order", epoch)
        # numpy keeps the raw stream of a bit generator for good, its permutations only within a version.
        return np.argsort(np.random.Philox(key=key).random_raw(self.samples), kind="stable").astype(np.int64)

    def batch(self, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Return windows, int64 of shape (ids, context + 1); thread-safe.

        Raises:
            IndexError: an id is not within 0 to samples - 1.
        """
        wanted = np.asarray(ids).astype(np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < self.samples):
            raise IndexError(f"window ids must lie in 0..{self.samples - 1}, found {wanted.min()}..{wanted.max()}")
        return self.tokens.gather(wanted * self.context, self.context + 1)

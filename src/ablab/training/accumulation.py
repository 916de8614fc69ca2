"""Splitting an effective batch: over processes, and into micro-batches whose gradients add up to the whole.

The loss of every micro-batch is a sum; divided by the weight of the whole effective batch, the gradients of any split
add up to that of the undivided batch (up to the order of addition).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from ablab.training.task import Batch


def share(ids: np.ndarray, *, rank: int, size: int) -> tuple[int, np.ndarray]:
    """Return where the contiguous part of process `rank` of `size` begins, and its ids; parts are as even as can be."""
    low = len(ids) * rank // size
    high = len(ids) * (rank + 1) // size
    return low, ids[low:high]


def split(batch: Batch, samples: int, micro: int) -> Iterator[dict[str, Any]]:
    """Yield micro-batches of at most `micro` of the batch's `samples`; what is not per sample is shared."""
    for low in range(0, samples, micro):
        yield {name: _cut(value, low, min(low + micro, samples), samples) for name, value in batch.items()}


def _cut(value: Any, low: int, high: int, samples: int) -> Any:
    if isinstance(value, Tensor | np.ndarray | list | tuple) and len(value) == samples:
        return value[low:high]
    return value


def micro_batch(effective: int, wanted: int | None, *, size: int) -> int:
    """Return the samples a device takes at once: what is wanted, never more than its share of the effective batch."""
    local = -(-effective // size)
    return min(local, wanted or local)

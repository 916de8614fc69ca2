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
        yield part_of(batch, samples, low, min(low + micro, samples))


def part_of(batch: Batch, samples: int, low: int, high: int) -> dict[str, Any]:
    """Return the samples `low` to `high` of a batch of `samples`."""
    return {name: value[low:high] if _per_sample(value, samples) else value for name, value in batch.items()}


def _per_sample(value: Any, samples: int) -> bool:
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim > 0 and len(value) == samples
    return isinstance(value, list | tuple) and len(value) == samples


def micro_batch(effective: int, wanted: int | None, *, size: int) -> int:
    """Return the samples a device takes at once: what is wanted, never more than its share of the effective batch."""
    local = -(-effective // size)
    return min(local, wanted or local)

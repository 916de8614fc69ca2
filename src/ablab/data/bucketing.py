"""Samples of similar length side by side, so that little of a batch is padding; seeded and a pure function of epoch.

Two steps, independent of each other. `grouped_order` orders an epoch so that the samples of a step are of similar
length, which changes what a step learns from. `within_budget` cuts the samples of a step into micro-batches by a
budget of padded tokens, which changes nothing but the order of addition.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: Batches of a window: of so many random batches the samples are sorted by length, so an epoch stays well mixed.
WINDOW = 50


def grouped_order(
    lengths: np.ndarray, *, batch: int, epoch: int, generator: np.random.Generator, window: int = WINDOW
) -> np.ndarray:
    """Return all sample ids once, int64 (samples,), so that each step's batch holds samples of similar length.

    Steps run on over the ends of epochs (`ablab.training.batches.Stream`), so where the samples are no multiple of
    the batch, an epoch begins with the rest of a batch; the groups are laid to the steps, not to the epoch's start.

    Args:
        lengths: length of each sample, int (samples,).
        batch: samples a step.
        epoch: which pass over the data.
        generator: of the epoch's random stream.
        window: batches whose samples are sorted together; 1 groups nothing.
    """
    samples = len(lengths)
    shuffled = generator.permutation(samples).astype(np.int64)
    head = min(-epoch * samples % batch, samples)
    body = (samples - head) // batch * batch
    start, middle, end = shuffled[:head], shuffled[head : head + body], shuffled[head + body :]
    groups: list[np.ndarray] = []
    for low in range(0, body, window * batch):
        part = middle[low : low + window * batch]
        part = part[np.argsort(lengths[part], kind="stable")]
        groups.extend(part.reshape(-1, batch))
    order = [groups[i] for i in generator.permutation(len(groups))]
    return np.concatenate([start, *order, end]) if samples else shuffled


def within_budget(
    ids: np.ndarray, cost: Callable[[np.ndarray], int], lengths: np.ndarray, *, most: int
) -> list[np.ndarray]:
    """Cut samples into micro-batches of similar length, each within a budget.

    Args:
        ids: samples of a step, int64 (n,).
        cost: returns how many of the given samples (sorted, the longest first) fit together, from the first one on;
            at least one always goes.
        lengths: length of each of the ids, int (n,).
        most: samples of a micro-batch at most.

    Returns:
        The ids, each once, the longest first.
    """
    ordered = ids[np.argsort(-lengths, kind="stable")]
    parts = []
    while len(ordered):
        take = max(1, min(most, cost(ordered)))
        parts.append(ordered[:take])
        ordered = ordered[take:]
    return parts


def padding_share(lengths: list[np.ndarray]) -> float:
    """Return the share of padding when each array of lengths is one batch, padded to its longest."""
    padded = sum(len(part) * int(part.max()) for part in lengths if len(part))
    return 1.0 - sum(int(part.sum()) for part in lengths) / padded if padded else 0.0

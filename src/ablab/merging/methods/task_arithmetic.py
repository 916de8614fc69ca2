"""Task arithmetic (arXiv 2212.04089): task vectors (model minus base) are weighted and added to the base."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def combine(deltas: Sequence[Tensor], weights: Sequence[float], *, normalize: bool = False) -> Tensor:
    """Return the weighted sum of fp32 task vectors, divided by the sum of the weights where asked.

    Works in place on the first.
    """
    divisor = sum(weights) if normalize else 1.0
    total = deltas[0].mul_(weights[0] / divisor)
    for delta, weight in zip(deltas[1:], weights[1:], strict=True):
        total.add_(delta, alpha=weight / divisor)
    return total

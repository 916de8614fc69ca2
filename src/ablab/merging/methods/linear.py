"""Linear interpolation of weights (model soups, arXiv 2203.05482): the weighted sum, divided by the weights' sum."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def linear(tensors: Sequence[Tensor], weights: Sequence[float], *, normalize: bool = True) -> Tensor:
    """Return the weighted sum of fp32 tensors of one shape, divided by the sum of the weights where asked.

    Works in place on the first tensor.
    """
    divisor = sum(weights) if normalize else 1.0
    result = tensors[0].mul_(weights[0] / divisor)
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        result.add_(tensor, alpha=weight / divisor)
    return result

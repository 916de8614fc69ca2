"""DELLA (arXiv 2406.11617): drop at random, the smaller an entry in its row the likelier, and rescale what stays.

The chance to stay grows linearly with the rank of the magnitude within the row, from density - epsilon for the
smallest to density + epsilon for the largest; a tensor of one dimension is one row.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ablab.merging.methods.dare import multiply

_LEVELS = 1 << 16


def chances(delta_RC: Tensor, density: float, epsilon: float) -> Tensor:
    """Return the chance to stay of each entry, a multiple of 2^-16; shape (rows, columns)."""
    rows, columns = delta_RC.shape
    order = delta_RC.abs().argsort(dim=1, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(columns, device=delta_RC.device).expand(rows, columns))
    share = ranks.float().div_(max(columns - 1, 1))
    return share.mul_(2 * epsilon).add_(density - epsilon).mul_(_LEVELS).round_().clamp_(1, _LEVELS).div_(_LEVELS)


def drop_smallest(
    delta_RC: Tensor, bits: np.ndarray, *, density: float, epsilon: float, rescale: bool = True
) -> Tensor:
    """Set entries to 0 by their `chances`, in place; with `rescale`, divide what stays by its own chance.

    Args:
        delta_RC: fp32 task vector as rows.
        bits: uint16, one for each entry.
        density: mean chance to stay.
        epsilon: how far the chances of the largest and smallest are from it.
        rescale: keep the expectation of each entry.
    """
    if density >= 1:
        return delta_RC
    chance = chances(delta_RC, density, epsilon)
    levels = chance.mul(_LEVELS).flatten().cpu().numpy()
    multiply(delta_RC, bits < levels)
    return delta_RC.div_(chance) if rescale else delta_RC

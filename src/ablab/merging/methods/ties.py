"""TIES (arXiv 2306.01708): trim each task vector to its largest entries, elect a sign, merge what agrees with it.

The elected sign of an entry is that of the weighted sum, plus where the sum is 0. An entry that is 0 agrees with
neither sign: it neither votes nor counts in the divisor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ablab.merging.methods.selection import Cut, cut_at, keep


def trim(delta: Tensor, density: float) -> Tensor:
    """Return a task vector of which the largest `density` of the entries stay, in place.

    Exactly max(1, int(density n)) entries stay; of equal magnitudes at the border the first in memory do.
    """
    cut = Cut.of(delta.numel(), density)
    return delta if cut is None else keep(delta, *cut_at(delta, cut))


def elect_and_merge(deltas: Sequence[Tensor], weights: Sequence[float], *, normalize: bool = True) -> Tensor:
    """Return the merged task vector of trimmed ones; works in place on all of them.

    Args:
        deltas: fp32 task vectors, equal in shape.
        weights: their factors.
        normalize: divide each entry by the sum of the weights of those that agree; 1 where none does.
    """
    for delta, weight in zip(deltas, weights, strict=True):
        if weight != 1.0:
            delta.mul_(weight)
    total = deltas[0].clone()
    for delta in deltas[1:]:
        total.add_(delta)
    # Seen from the elected sign, what agrees is positive; adding 0 makes of -0 a +0, whose sign is plus.
    sign = torch.copysign(torch.ones_like(total), total.add_(0.0))
    divisor = torch.zeros_like(total) if normalize else None
    total.zero_()
    for delta, weight in zip(deltas, weights, strict=True):
        delta.mul_(sign).clamp_min_(0.0)
        total.add_(delta)
        if divisor is not None:
            divisor.add_(delta.sign_(), alpha=weight)
    if divisor is not None:
        # Where nothing agrees the sum is 0 too, and any divisor but 0 will do.
        divisor = divisor.clamp_min_(min(weights)) if min(weights) > 0 else divisor.add_((divisor == 0).float())
        total.div_(divisor)
    return total.mul_(sign)

"""Holm's step-down over the variants of one comparison (Holm 1979, "A simple sequentially rejective procedure").

Every variant comes with two one-sided p-values against the margin: that it satisfies the criterion, and that it does
not. The smaller of the two ranks it. The variant of rank k among m is judged at level alpha / (m - k + 1), two-sided,
which is the same as asking whether the interval at confidence 1 - alpha / (m - k + 1) leaves the margin out. After
the first variant that stays undecided all later ones are undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One variant's place in the procedure.

    Args:
        index: position of the variant in the sequence given to `holm`.
        rank: 1 for the smallest p.
        alpha: two-sided level of this step; the interval is drawn at confidence 1 - alpha.
        decided: whether the procedure reached this step and its p is small enough.
        reached: False when an earlier step was undecided.
    """

    index: int
    rank: int
    alpha: float
    decided: bool
    reached: bool

    @property
    def level(self) -> float:
        """Confidence level of the interval of this step."""
        return 1 - self.alpha


def holm(p_values: Sequence[float], alpha: float) -> list[Step]:
    """Return one step a variant, in the order given.

    Args:
        p_values: the smaller one-sided p of each variant; 1 for a variant that has no test (yet).
        alpha: two-sided family-wise error rate, for example 0.05.
    """
    order = sorted(range(len(p_values)), key=lambda index: (p_values[index], index))
    steps: dict[int, Step] = {}
    reached = True
    for rank, index in enumerate(order, start=1):
        level = alpha / (len(order) - rank + 1)
        decided = reached and 2 * p_values[index] < level
        steps[index] = Step(index=index, rank=rank, alpha=level, decided=decided, reached=reached)
        reached = decided
    return [steps[index] for index in range(len(order))]

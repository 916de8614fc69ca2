"""Student t intervals and one-sided p-values of a mean against a margin.

A sample holds one number a seed: a paired log ratio, a paired difference, or a plain value. Intervals over few
seeds are Student's, since a percentile bootstrap of three values covers 74 % where 95 % is asked (Student 1908, "The
probable error of a mean"). A sample without randomness is a constant: its interval is the point itself. One random
value has no interval at all. What is compared with what, and what follows, belongs to `effects` and `verdicts`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Seeds beyond which `seeds_to_decide` gives up and a report says "more than 100".
MOST_SEEDS = 100
#: Relative distance below which two numbers are the same number written twice.
SAME = 1e-12


def student_quantile(probability: float, freedom: int) -> float:
    """Return t such that a Student variable with `freedom` degrees of freedom stays below it with `probability`."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def student_below(t: float, freedom: int) -> float:
    """Return the probability that a Student variable with `freedom` degrees of freedom is at most `t`."""
    from scipy.special import stdtr

    return float(stdtr(freedom, t))


def same(a: float, b: float) -> bool:
    """Whether two numbers differ by no more than rounding."""
    return math.isclose(a, b, rel_tol=SAME, abs_tol=SAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Independent values of one quantity, one a seed.

    Args:
        values: at least one finite number.
        constant: nothing in the quantity depends on the seed, so that its values are the quantity itself.
    """

    values: tuple[float, ...]
    constant: bool = False

    @property
    def n(self) -> int:
        """Number of values."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Arithmetic mean; 0 where nothing but rounding is left of values that cancel."""
        mean = math.fsum(self.values) / self.n
        return 0.0 if abs(mean) <= SAME * max(map(abs, self.values)) else mean

    @property
    def sd(self) -> float | None:
        """Standard deviation with n - 1 in the denominator; 0 for a constant, None for one random value."""
        if self.constant or (self.n > 1 and all(same(value, self.values[0]) for value in self.values)):
            return 0.0
        if self.n < 2:
            return None
        mean = self.mean
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self.values) / (self.n - 1))

    def interval(self, level: float) -> tuple[float, float] | None:
        """Return the two-sided interval of the mean at a confidence level (0 to 1); None for one random value."""
        sd = self.sd
        if sd is None:
            return None
        half = half_width(sd, self.n, level)
        return self.mean - half, self.mean + half

    def p_below(self, margin: float) -> float:
        """Return the one-sided p-value of "the mean is at or above `margin`": small where the mean is below it.

        Without spread the answer is certain: 0 below the margin, 1 at or above it. One random value says nothing: 1.
        """
        sd = self.sd
        if sd is None:
            return 1.0
        if sd == 0:
            return 0.0 if self.mean < margin and not same(self.mean, margin) else 1.0
        return student_below((self.mean - margin) / (sd / math.sqrt(self.n)), self.n - 1)

    def p_above(self, margin: float) -> float:
        """Return the one-sided p-value of "the mean is at or below `margin`": small where the mean is above it."""
        mirrored = Sample(values=tuple(-value for value in self.values), constant=self.constant)
        return mirrored.p_below(-margin)


def half_width(sd: float, n: int, level: float) -> float:
    """Return half the width of the t interval of a mean of `n` values with standard deviation `sd`."""
    if sd == 0:
        return 0.0
    return student_quantile((1 + level) / 2, n - 1) * sd / math.sqrt(n)


def seeds_to_decide(sd: float, distance: float, level: float) -> int | None:
    """Return the smallest number of seeds whose expected interval would leave the margin out.

    Args:
        sd: standard deviation seen between seeds.
        distance: from the estimate to the margin, positive.
        level: confidence level of the interval.

    Returns:
        A number from 2 to `MOST_SEEDS`; None when even that many would not be enough.
    """
    if distance <= 0:
        return None
    return next((n for n in range(2, MOST_SEEDS + 1) if half_width(sd, n, level) < distance), None)


def log_ratios(pairs: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """Return log(variant / baseline) of (baseline, variant) pairs; ValueError when a value is not positive."""
    if any(value <= 0 for pair in pairs for value in pair):
        raise ValueError("a ratio needs positive values")
    return tuple(math.log(variant / baseline) for baseline, variant in pairs)

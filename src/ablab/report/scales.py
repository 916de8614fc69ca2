"""Scales of figures: from numbers to shares of an axis, with round ticks. Nothing here knows how a figure is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

#: Steps of a linear axis within a power of ten, and marks of a logarithmic one.
_STEPS = (1, 2, 2.5, 5, 10)
_MARKS = (1, 2, 5)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis from `low` to `high`, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Return where a value lies between the ends, 0 to 1; values beyond them are held there."""
        low, high, at = self._on(self.low), self._on(self.high), self._on(value)
        return 0.5 if high == low else min(1.0, max(0.0, (at - low) / (high - low)))

    def holds(self, value: float) -> bool:
        """Whether a value lies between the ends."""
        return self.low <= value <= self.high

    def ticks(self, most: int = 6) -> list[float]:
        """Return at most about `most` round numbers between the ends."""
        if self.log and self.high / self.low > 3:
            found = self._log_ticks(most)
            if len(found) >= 2:
                return found
        return self._linear_ticks(most)

    def _on(self, value: float) -> float:
        if not self.log:
            return value
        return math.log(value) if value > 0 else math.log(self.low)

    def _linear_ticks(self, most: int) -> list[float]:
        span = self.high - self.low
        if span <= 0 or not math.isfinite(span):
            return [self.low]
        power = 10 ** math.floor(math.log10(span / most))
        step = next(power * factor for factor in _STEPS if span / (power * factor) <= most)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [_clean((first + place) * step) for place in range(count)]

    def _log_ticks(self, most: int) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = [mark * 10.0**power for power in powers for mark in _MARKS]
        inside = [_clean(tick) for tick in every if self.holds(tick)]
        if len(inside) <= most + 2:
            return inside
        tens = [_clean(10.0**power) for power in powers if self.holds(10.0**power)]
        return tens[:: -(-len(tens) // most)] if tens else inside[:: -(-len(inside) // most)]


def covering(values: Iterable[float | None], *, log: bool = False, pad: float = 0.06) -> Scale:
    """Return a scale around finite values with some room at both ends; logarithmic only where all are positive."""
    found = [value for value in values if value is not None and math.isfinite(value)]
    if not found:
        return Scale(low=0.0, high=1.0)
    log = log and min(found) > 0
    low, high = (math.log(min(found)), math.log(max(found))) if log else (min(found), max(found))
    room = (high - low) * pad if high > low else (0.05 if log else abs(high) * 0.05 or 0.5)
    low, high = low - room, high + room
    if not log:
        return Scale(low=low, high=high)
    # What is smaller than a float can be ends at the smallest value there is.
    return Scale(low=min(math.exp(low) or min(found), min(found)), high=max(math.exp(high), max(found)), log=True)


def _clean(value: float) -> float:
    """Return a tick without the dust of binary fractions."""
    return float(f"{value:.10g}")

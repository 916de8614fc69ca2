"""Seconds of steps without warm-up, and what a run still needs, validation counted."""

from __future__ import annotations

import statistics
from array import array

#: Steps at the start of an attempt that statistics leave out: at most this many, and at most a tenth.
WARM_UP = 100


class StepTimes:
    """Durations of the steps of one attempt, without validation and checkpoints.

    Args:
        waits: False on a device that runs behind: a step's seconds are then only those of handing it out, and are
            known on average once the device has been waited for.
    """

    def __init__(self, *, waits: bool = True) -> None:
        self.seconds = array("d")
        self.weights = array("d")
        self.waited = array("d")
        self._waits = waits
        self._open: list[float] = []

    def add(self, seconds: float, weight: float, *, waited: float = 0.0) -> None:
        """Take in one step; `waited` are those of its seconds in which it waited for data."""
        self.weights.append(weight)
        self.waited.append(waited)
        if self._waits:
            self.seconds.append(seconds)
        else:
            self._open.append(seconds)

    def settle(self, waited: float) -> None:
        """Spread the seconds that the device was waited for over the steps handed out since the last time."""
        if self._open:
            mean = (sum(self._open) + waited) / len(self._open)
            self.seconds.extend([mean] * len(self._open))
            self._open.clear()

    def recent(self) -> float | None:
        """Return the median seconds of the last steps, None before the first."""
        return statistics.median(self.seconds[-50:]) if self.seconds else None

    def summary(self, batch: int) -> dict[str, float]:
        """Return median, mean and 95th percentile seconds, mean seconds waited for data, rates, and how many steps were
        counted and left out."""
        count = len(self.seconds)
        if not count:
            return {}
        excluded = 0 if count < 3 else min(WARM_UP, max(1, count // 10))
        kept = sorted(self.seconds[excluded:])
        total = sum(kept)
        median = statistics.median(kept)
        return {
            "median": median,
            "mean": total / len(kept),
            "p95": kept[min(len(kept) - 1, int(0.95 * len(kept)))],
            "waited": statistics.fmean(self.waited[excluded:count]),
            "counted": float(len(kept)),
            "excluded": float(excluded),
            "per_second": 1.0 / median if median > 0 else 0.0,
            "samples_per_second": batch * len(kept) / total if total > 0 else 0.0,
            "tokens_per_second": sum(self.weights[excluded:]) / total if total > 0 else 0.0,
        }


class Forecast:
    """What is left of a run in seconds: steps, and validations at the price of those seen."""

    def __init__(self, *, steps: int, every: int | None) -> None:
        self._steps, self._every = steps, every
        self._validations = 0
        self._seconds = 0.0

    def validated(self, seconds: float) -> None:
        """Take in a validation."""
        self._validations += 1
        self._seconds += seconds

    def estimate(self, step: int, step_seconds: float) -> tuple[float, float]:
        """Return (seconds left, share done) after `step` updates."""
        price = self._seconds / self._validations if self._validations else 0.0
        left = (self._steps - step) * step_seconds + (self._count(self._steps) - self._count(step)) * price
        done = step * step_seconds + self._count(step) * price
        return left, done / (done + left) if done + left > 0 else 1.0

    def _count(self, step: int) -> int:
        """Return the validations up to a step; the last step always has one."""
        within = step // self._every if self._every else 0
        extra = step >= self._steps and (not self._every or self._steps % self._every != 0)
        return within + int(extra)

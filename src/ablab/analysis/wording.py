"""English sentences of verdicts; numbers are rounded here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ablab.analysis.intervals import MOST_SEEDS
from ablab.study.schema import Condition


def number(value: float, digits: int = 4) -> str:
    """Return a number with `digits` significant digits, without an exponent where it can be read without."""
    if value == 0 or 1e-4 <= abs(value) < 1e7:
        text = f"{value:.{digits}g}"
        if "e" in text:
            text = f"{value:.0f}"
        return text
    return f"{value:.{digits - 1}e}"


def percent(level: float) -> str:
    """Return a confidence level for a sentence: 95 %, 98.33 %."""
    return f"{round(100 * level, 2):g} %"


def condition_text(condition: Condition) -> str:
    """Return a condition as a study writes it, with its metric."""
    return f"{condition.metric} {condition.quantity} {condition.operator} {condition.number:g}"


def interval_text(low: float, high: float, level: float) -> str:
    """Return an interval for a sentence."""
    return f"{percent(level)} interval {number(low)} to {number(high)}"


def names(items: Iterable[object]) -> str:
    """Join names with commas."""
    return ", ".join(str(item) for item in items)


def missing_text(missing: Mapping[str, tuple[int, ...]]) -> str:
    """Return which seeds are missing of which arm; empty when none is."""
    return "; ".join(
        f"{experiment} has no value at {'seed' if len(seeds) == 1 else 'seeds'} {names(seeds)}"
        for experiment, seeds in missing.items()
    )


def seeds_text(needed: int | None) -> str:
    """Return the seeds that would decide."""
    if needed is None:
        return f"more than {MOST_SEEDS} seeds would be needed at this spread"
    return f"about {needed} seeds would decide at this spread"

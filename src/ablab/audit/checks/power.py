"""Power: with the spread seen so far, could these seeds decide anything."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from ablab.audit.findings import finding, not_checked, place
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding
from ablab.study.schema import Comparison, Condition


def undersized(view: AuditView) -> Iterable[Finding]:
    """Warnings: an interval wider than the way from "no effect" to the margin, at the spread of earlier results."""
    for index, comparison in view.comparisons():
        conditions = [c for c in comparison.criterion.conditions if c.quantity != "value"]
        seeds = _common_seeds(view, comparison)
        if not conditions or len(seeds) < 2:
            continue
        lacking = True
        for condition in conditions:
            spread = _spread(view, comparison, condition)
            way = _way(condition)
            if spread is None or way is None:
                continue
            lacking = False
            half = _half_width(spread, len(seeds), comparison.confidence)
            if half > way:
                yield finding(
                    view,
                    "undersized",
                    "warning",
                    place(index, comparison),
                    f"with {len(seeds)} seeds and the spread seen so far, the interval of {condition.metric} reaches "
                    f"{_shown(condition, half)} to either side, further than the way to the margin "
                    f"({_shown(condition, way)}): even no effect at all would stay undecided",
                    remedy="add seeds, lengthen the runs, or widen the margin before looking at results",
                    evidence={"sd": spread, "seeds": len(seeds), "half_width": half, "to_margin": way},
                    comparison=comparison,
                )
        if lacking:
            yield not_checked(
                view,
                "undersized",
                place(index, comparison),
                "the spread between seeds is known once two paired seeds are done",
                remedy="run two seeds",
                comparison=comparison,
            )


def _spread(view: AuditView, comparison: Comparison, condition: Condition) -> float | None:
    """Return the pooled standard deviation of paired effects over the variants; None with fewer than two pairs."""
    best = comparison.at == "best"
    base = view.values(view.study.experiments[comparison.baseline], condition.metric, best=best)
    squares, freedom = 0.0, 0
    for name in comparison.variants:
        own = view.values(view.study.experiments[name], condition.metric, best=best)
        effects = [_effect(condition, base[seed], own[seed]) for seed in base if seed in own]
        known = [effect for effect in effects if effect is not None]
        if len(known) > 1:
            squares += statistics.variance(known) * (len(known) - 1)
            freedom += len(known) - 1
    return math.sqrt(squares / freedom) if freedom else None


def _effect(condition: Condition, baseline: float, variant: float) -> float | None:
    if condition.quantity == "difference":
        return variant - baseline
    return math.log(variant / baseline) if baseline > 0 and variant > 0 else None


def _way(condition: Condition) -> float | None:
    """Return the distance from no effect to the margin, on the scale of the test."""
    if condition.quantity == "difference":
        return abs(condition.number) or None
    return abs(math.log(condition.number)) or None if condition.number > 0 else None


def _half_width(sd: float, n: int, confidence: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, (1 + confidence) / 2)) * sd / math.sqrt(n)


def _shown(condition: Condition, value: float) -> str:
    return f"{100 * math.expm1(value):.2g} %" if condition.quantity == "ratio" else f"{value:.3g}"


def _common_seeds(view: AuditView, comparison: Comparison) -> list[int]:
    """Return the seeds that the baseline shares with every variant."""
    arms = view.arms(comparison)
    return [seed for seed in view.seeds(arms[0]) if all(seed in view.seeds(arm) for arm in arms[1:])]


CHECKS = (undersized,)

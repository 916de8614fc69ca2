"""Ablation decomposition: the way from A to C over B as two parts that add up to the whole, per seed.

Ratios add on the log scale: log(C/A) = log(B/A) + log(C/B). A share is a part over the whole; it says little where the
whole is near zero, so it is left out there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from ablab.analysis.effects import metric_and_checkpoint
from ablab.analysis.intervals import Sample
from ablab.analysis.results import At, Results
from ablab.study.schema import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One step of the way.

    Args:
        effect: mean over paired seeds, a ratio or a difference (`to` against `start`).
        low, high: Student interval; None with one random seed.
        share: of the whole way, from the means; None where the whole way cannot be told from nothing.
        n: paired seeds.
    """

    start: str
    to: str
    effect: float
    low: float | None
    high: float | None
    share: float | None
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decomposition:
    """The whole way and its parts, for one metric, over the seeds that every arm of the path has."""

    path: tuple[str, ...]
    metric: str
    quantity: str
    seeds: tuple[int, ...]
    whole: Part
    parts: tuple[Part, ...]


def decompose(
    results: Results,
    path: Sequence[str],
    *,
    metric: str,
    quantity: str = "ratio",
    at: At = "last",
    confidence: float = 0.95,
) -> Decomposition | None:
    """Return the parts of the way along `path` (at least two arms).

    Only seeds that every arm has complete values for count, so that the parts add up to the whole exactly. None when
    there is no such seed, or a ratio would need a value that is not positive.
    """
    values = {name: results.values(name, metric, at) for name in path}
    seeds = tuple(seed for seed in results.seeds(path[0]) if all(seed in found for found in values.values()))
    scaled: dict[str, list[float]] = {}
    for name in path:
        numbers = [values[name][seed] for seed in seeds]
        if quantity == "ratio" and any(number <= 0 for number in numbers):
            return None
        scaled[name] = [math.log(number) for number in numbers] if quantity == "ratio" else numbers
    if not seeds:
        return None
    whole = _difference(scaled[path[0]], scaled[path[-1]])
    interval = whole.interval(confidence)
    told = interval is not None and not interval[0] <= 0 <= interval[1]
    total = whole.mean if told or len(path) == 2 else None

    def part(start: str, to: str) -> Part:
        sample = _difference(scaled[start], scaled[to])
        bounds = sample.interval(confidence)
        show = math.exp if quantity == "ratio" else float
        return Part(
            start=start,
            to=to,
            effect=show(sample.mean),
            low=None if bounds is None else show(bounds[0]),
            high=None if bounds is None else show(bounds[1]),
            share=sample.mean / total if total else None,
            n=sample.n,
        )

    return Decomposition(
        path=tuple(path),
        metric=metric,
        quantity=quantity,
        seeds=seeds,
        whole=part(path[0], path[-1]),
        parts=tuple(part(start, to) for start, to in pairwise(path)),
    )


def _difference(start: Sequence[float], to: Sequence[float]) -> Sample:
    return Sample(values=tuple(b - a for a, b in zip(start, to, strict=True)))


def pairwise_effects(results: Results, comparison: Comparison, *, most: int = 12) -> list[Part]:
    """Return the effect from the baseline to each variant, then between every two variants (at most `most` in all)."""
    metric, at = metric_and_checkpoint(comparison.metric, comparison.at)
    conditions = [c for c in comparison.criterion.conditions if c.metric.partition("@")[0] == metric]
    quantity = "difference" if any(c.quantity == "difference" for c in conditions) else "ratio"
    ways = [(comparison.baseline, variant) for variant in comparison.variants]
    ways += list(combinations(comparison.variants, 2))
    found = (
        decompose(results, way, metric=metric, quantity=quantity, at=at, confidence=comparison.confidence)
        for way in ways[:most]
    )
    return [way.whole for way in found if way is not None]

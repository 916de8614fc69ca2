"""Curves from events, thinned for drawing, and the gap of an arm to its baseline at equal steps.

Validation points are all kept, since a gap is only taken between values of exactly the same step: 20,000 steps of one
arm against 19,000 of the other is no gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablab.analysis.results import Curve, Results
from ablab.study.schema import Comparison, Condition

#: Points of a training curve that are kept: the lowest and the highest of each of half as many buckets.
POINTS = 600
_NO_CURVE = frozenset({"e", "t", "step", "attempt"})
_AS_NAMED = frozenset({"lr", "grad_norm", "tokens"})


def curves(events: Iterable[Mapping[str, Any]], *, points: int = POINTS) -> dict[str, Curve]:
    """Return the curves of a run by name: `train/loss`, other logged numbers, and every validation metric.

    Args:
        events: of all attempts, superseded ones dropped, oldest first.
        points: most points of a training curve; validation curves are whole.
    """
    logged: dict[str, dict[int, float]] = {}
    validated: dict[str, dict[int, float]] = {}
    for event in events:
        if event.get("e") == "step":
            for key, value in event.items():
                if key not in _NO_CURVE and isinstance(value, int | float):
                    name = key if key in _AS_NAMED or "/" in key else f"train/{key}"
                    logged.setdefault(name, {})[event.get("step", 0)] = float(value)
        elif event.get("e") == "validation":
            for key, value in (event.get("values") or {}).items():
                validated.setdefault(key, {})[event.get("step", 0)] = float(value)
    thin = {name: _curve(name, found, points) for name, found in logged.items() if name not in validated}
    return thin | {name: _curve(name, found, None) for name, found in validated.items()}


def _curve(name: str, found: Mapping[int, float], points: int | None) -> Curve:
    steps = sorted(found)
    kept = steps if points is None else thinned(steps, [found[step] for step in steps], points=points)
    return Curve(
        name=name, steps=tuple(kept), values=tuple(found[step] for step in kept), thinned=len(kept) < len(steps)
    )


def thinned(steps: Sequence[int], values: Sequence[float], *, points: int = POINTS) -> list[int]:
    """Return at most `points` of the steps: first, last, and each bucket's lowest, highest and not-a-number."""
    if len(steps) <= points:
        return list(steps)
    buckets = max(1, (points - 2) // 3)
    kept = {0, len(steps) - 1}
    for bucket in range(buckets):
        inside = range(bucket * len(steps) // buckets, (bucket + 1) * len(steps) // buckets)
        finite = [i for i in inside if values[i] == values[i]]
        kept.update(i for i in inside if values[i] != values[i] and not kept.intersection(inside))
        if finite:
            kept.add(min(finite, key=values.__getitem__))
            kept.add(max(finite, key=values.__getitem__))
    return [steps[i] for i in sorted(kept)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How far an arm is from its baseline at the validation steps both have.

    `values` are ratios or differences (variant against baseline), as `quantity` says.
    """

    variant: str
    seed: int
    metric: str
    quantity: str
    steps: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def last(self) -> tuple[int, float] | None:
        """Return (step, gap) at the last step both arms have; None where they share none."""
        return (self.steps[-1], self.values[-1]) if self.steps else None


def gaps(results: Results, comparison: Comparison, *, metric: str | None = None) -> list[Gap]:
    """Return the gap of every variant and seed to the baseline of the same seed, at common validation steps only.

    Args:
        metric: None takes the comparison's.
    """
    name = (metric or comparison.metric).partition("@")[0]
    quantity = _quantity(comparison.criterion.conditions, name)
    found = []
    for variant in comparison.arms[1:]:
        for seed in results.seeds(variant):
            base, own = (
                validation_curve(results, comparison.baseline, seed, name),
                validation_curve(results, variant, seed, name),
            )
            if base is not None and own is not None:
                found.append(gap(base, own, variant=variant, seed=seed, quantity=quantity))
    return found


def gap(baseline: Curve, variant_curve: Curve, *, variant: str, seed: int, quantity: str = "ratio") -> Gap:
    """Return the gap between two curves at the steps both have; a ratio to a value <= 0 is left out."""
    base = dict(zip(baseline.steps, baseline.values, strict=True))
    steps, values = [], []
    for step, value in zip(variant_curve.steps, variant_curve.values, strict=True):
        if step not in base or (quantity == "ratio" and base[step] <= 0):
            continue
        steps.append(step)
        values.append(value / base[step] if quantity == "ratio" else value - base[step])
    return Gap(
        variant=variant,
        seed=seed,
        metric=variant_curve.name,
        quantity=quantity,
        steps=tuple(steps),
        values=tuple(values),
    )


def validation_curve(results: Results, experiment: str, seed: int, metric: str) -> Curve | None:
    """Return a metric's curve over the steps of the arm's last stage that has one; None when none has."""
    for stage in reversed(results.study.experiments[experiment].stages):
        record = results.run(experiment, seed, stage.name)
        if record is not None and metric in record.curves:
            return record.curves[metric]
    return None


def _quantity(conditions: Sequence[Condition], metric: str) -> str:
    """Return ratio or difference, as the criterion measures this metric; a ratio where it says neither."""
    for condition in conditions:
        if condition.metric.partition("@")[0] == metric and condition.quantity != "value":
            return condition.quantity
    return "ratio"

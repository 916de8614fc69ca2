"""Curves from events, thinned for drawing, and the gap of an arm to its baseline at equal steps.

Validation points are all kept, since a gap is only taken between values of exactly the same step: 20,000 steps of one
arm against 19,000 of the other is no gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ablab.analysis.results import Curve, Results
from ablab.study.schema import Comparison, Condition

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    #: Steps and values of one name, in the order they were logged.
    Column = tuple[NDArray[np.int64], NDArray[np.float64]]

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
    steps: list[Mapping[str, Any]] = []
    others: list[Mapping[str, Any]] = []
    for event in events:
        (steps if event.get("e") == "step" else others).append(event)
    return curves_of(steps, others, points=points)


def curves_of(
    steps: Sequence[Mapping[str, Any]], others: Iterable[Mapping[str, Any]], *, points: int = POINTS
) -> dict[str, Curve]:
    """Return the same of step events and other events, each in their order."""
    validations = [event for event in others if event.get("e") == "validation"]
    validated = {name: _curve(name, _joined([found]), None) for name, found in _validated(validations).items()}
    thin = {name: _curve(name, found, points) for name, found in _columns(steps).items() if name not in validated}
    return thin | validated


def _columns(events: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """Return the numbers of step events by name; events of equal keys, the usual case, are taken all at once."""
    whole = _table(events)
    if whole is not None:
        return {name: _joined([column]) for name, column in whole.items()}
    groups: dict[frozenset[str], list[Mapping[str, Any]]] = {}
    for event in events:
        groups.setdefault(frozenset(event), []).append(event)
    parts: dict[str, list[Column]] = {}
    for members in groups.values():
        steps = [event.get("step", 0) for event in members]
        for key in members[0]:
            if key not in _NO_CURVE:
                parts.setdefault(_named(key), []).append(_numbers(steps, [event[key] for event in members]))
    return {name: _joined(columns) for name, columns in parts.items()}


def _table(events: Sequence[Mapping[str, Any]]) -> dict[str, Column] | None:
    """Return the columns of events that all have the same keys and hold numbers; None where any differs.

    Events of one length that have the keys of the first have no others: type, time and attempt are in all of them.
    """
    import numpy as np

    if not events or "step" not in events[0] or len(set(map(len, events))) > 1:
        return None
    keys = [key for key in events[0] if key not in _NO_CURVE]
    try:
        rows = list(map(itemgetter("step", *keys), events))
        table = np.array(rows, dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        return None
    if not keys or bool(np.isnan(table).any()):
        # What is no number at all (null) reads as not-a-number here: a closer look tells them apart.
        return None if keys else {}
    steps = table[:, 0].astype(np.int64)
    return {_named(key): (steps, np.ascontiguousarray(table[:, place])) for place, key in enumerate(keys, 1)}


def _named(key: str) -> str:
    """Return the name of the curve of a logged number."""
    return key if key in _AS_NAMED or "/" in key else f"train/{key}"


def _validated(events: Iterable[Mapping[str, Any]]) -> dict[str, Column]:
    """Return validation values by metric."""
    found: dict[str, tuple[list[int], list[Any]]] = {}
    for event in events:
        for name, value in (event.get("values") or {}).items():
            steps, values = found.setdefault(name, ([], []))
            steps.append(event.get("step", 0))
            values.append(value)
    return {name: _numbers(steps, values) for name, (steps, values) in found.items()}


def _numbers(steps: Sequence[int], values: Sequence[Any]) -> Column:
    """Return what of the values is a number, with its steps."""
    import numpy as np

    if set(map(type, values)) - {float, int, bool}:
        kept = [place for place, value in enumerate(values) if isinstance(value, int | float)]
        steps, values = [steps[place] for place in kept], [values[place] for place in kept]
    return np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64)


def _joined(columns: list[Column]) -> Column:
    """Return the parts of a column as one over ascending steps; what was logged last of a step counts."""
    import numpy as np

    steps = columns[0][0] if len(columns) == 1 else np.concatenate([part[0] for part in columns])
    values = columns[0][1] if len(columns) == 1 else np.concatenate([part[1] for part in columns])
    if len(steps) < 2 or bool((np.diff(steps) > 0).all()):
        return steps, values
    unique, places = np.unique(steps[::-1], return_index=True)
    return unique, values[::-1][places]


def _curve(name: str, column: Column, points: int | None) -> Curve:
    steps, values = column
    places = None if points is None or len(steps) <= points else thinned_places(values, points=points)
    kept_steps, kept_values = (steps, values) if places is None else (steps[places], values[places])
    return Curve(
        name=name,
        steps=tuple(kept_steps.tolist()),
        values=tuple(kept_values.tolist()),
        thinned=len(kept_steps) < len(steps),
    )


def thinned(steps: Sequence[int], values: Sequence[float], *, points: int = POINTS) -> list[int]:
    """Return at most `points` of the steps: first, last, and each bucket's lowest, highest and not-a-number."""
    return [steps[place] for place in thinned_places(values, points=points)]


def thinned_places(values: Sequence[float] | NDArray[np.float64], *, points: int = POINTS) -> list[int]:
    """Return at most `points` places of a curve, ascending, so that nothing that stands out is lost.

    The places are cut into equal buckets; the first and the last place stay, and of each bucket the lowest, the
    highest and the first value that is not a number. Fewer than five points keep the ends, as many as there may be.
    """
    count = len(values)
    if count <= points:
        return list(range(count))
    import numpy as np

    buckets = max(1, (points - 2) // 3)
    width = -(-count // buckets)
    rows = -(-count // width)
    padded = np.full(rows * width, np.nan)
    padded[:count] = values
    table = padded.reshape(rows, width)
    missing = np.isnan(table)
    missing.reshape(-1)[count:] = False
    first = np.arange(rows) * width
    places = np.concatenate(
        [
            [0, count - 1],
            first + np.where(np.isnan(table), np.inf, table).argmin(axis=1),
            first + np.where(np.isnan(table), -np.inf, table).argmax(axis=1),
            (first + missing.argmax(axis=1))[missing.any(axis=1)],
        ]
    )
    return [int(place) for place in np.unique(places[places < count])]


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

"""Any two arms or runs side by side: what differs, metrics, curves, and the gap at equal steps.

Exploratory by nature: the pair was chosen by looking, no criterion was stated before, and no verdict follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ablab.analysis.curves import Gap, gap
from ablab.analysis.intervals import Sample, log_ratios
from ablab.analysis.results import Curve
from ablab.contract.task import usual_direction
from ablab.report.figures import Curves, Trace
from ablab.report.names import unknown
from ablab.report.sides import Side, Stored

CONFIDENCE = 0.95
#: Facts of runs worth a row; times come from the result's own account.
FACTS = ("parameters.total", "parameters.trained", "tokens.seen", "samples.seen")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing in which the sides differ. `kind`: configuration, numerics, or what they read."""

    path: str
    a: Any
    b: Any
    kind: Literal["configuration", "numerics", "input"] = "configuration"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Mean and Student interval of n values; without interval where one value is random."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One metric of both sides, and B against A over pairs of equal seeds."""

    metric: str
    direction: Literal["lower", "higher"]
    a: Estimate | None
    b: Estimate | None
    quantity: Literal["ratio", "difference"]
    effect: Estimate | None


@dataclass(frozen=True, kw_only=True)
class CurvePair:
    """One curve of both sides, by pair, and the gap of B to A at the steps that both have."""

    metric: str
    direction: Literal["lower", "higher"]
    quantity: Literal["ratio", "difference"]
    a: Mapping[str, Curve]
    b: Mapping[str, Curve]
    gaps: Mapping[str, Gap]


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A number that running told, of one run or as the mean of several."""

    name: str
    a: float | None
    b: float | None


@dataclass(frozen=True, kw_only=True)
class PairView:
    """The whole comparison."""

    a: Side
    b: Side
    differences: tuple[Difference, ...]
    metrics: tuple[MetricRow, ...]
    curves: tuple[CurvePair, ...]
    facts: tuple[Fact, ...]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "exploratory": True,
            "a": _side_json(self.a),
            "b": _side_json(self.b),
            "warnings": list(self.warnings),
            "differences": [asdict(each) for each in self.differences],
            "metrics": [asdict(row) for row in self.metrics],
            "facts": [asdict(fact) for fact in self.facts],
            "gaps": [
                {"metric": pair.metric, "quantity": pair.quantity, "pair": name, "steps": g.steps, "values": g.values}
                for pair in self.curves
                for name, g in pair.gaps.items()
            ],
        }


def compare(a: Side, b: Side, *, metrics: Sequence[str] | None = None) -> PairView:
    """Return two sides side by side, B against A.

    Args:
        a, b: the sides, both arms or both single runs.
        metrics: names; None takes all that both have.

    Raises:
        ConfigError: a metric that neither side has.
    """
    pairs, warnings = _pairs(a, b)
    return PairView(
        a=a,
        b=b,
        differences=tuple(_differences(a, b)),
        metrics=tuple(_metric_rows(a, b, pairs, metrics)),
        curves=tuple(_curve_pairs(a, b, pairs, metrics)),
        facts=tuple(_facts(a, b)),
        warnings=tuple([*warnings, *_cautions(a, b)]),
    )


Pairs = list[tuple[str, int | None, int | None]]


def _pairs(a: Side, b: Side) -> tuple[Pairs, list[str]]:
    """Return (name, key in a, key in b): equal seeds; or the only run of each, whatever its seed."""
    if len(a.runs) == len(b.runs) == 1:
        (ours,), (theirs,) = a.runs, b.runs
        mine, other = (side.seed if key is None else key for side, key in ((a, ours), (b, theirs)))
        if mine == other:
            return [("run" if mine is None else f"seed {mine}", ours, theirs)], []
        return [(f"seeds {mine} and {other}", ours, theirs)], [
            f"the seeds differ ({mine} and {other}): what is seen may be the seed"
        ]
    common = [seed for seed in a.runs if seed in b.runs]
    warnings = [] if common else ["the sides share no seed, so that nothing is paired"]
    alone = {side.name: [seed for seed in side.runs if seed not in common] for side in (a, b)}
    warnings += [f"only {name} has seed {', '.join(map(str, seeds))}" for name, seeds in alone.items() if seeds]
    return [(f"seed {seed}", seed, seed) for seed in common], warnings


def _cautions(a: Side, b: Side) -> list[str]:
    found = []
    for side in (a, b):
        if not side.runs:
            found.append(f"nothing of {side.name} has started")
        unfinished = [run for run in side.all_runs() if run.status != "done"]
        if unfinished:
            listed = ", ".join(f"{run.folder.name} ({run.status})" for run in unfinished[:4])
            found.append(f"not complete: {listed}")
        if any(run.result is not None and run.result.shared for run in side.all_runs()):
            found.append(f"runs of {side.name} shared their machine: compare no speeds")
    if (
        a.study is not None
        and b.study is not None
        and (a.study.name, a.study.profile) != (b.study.name, b.study.profile)
    ):
        found.append(f"from two studies: {a.study.name}/{a.study.profile} and {b.study.name}/{b.study.profile}")
    return found


# --- What differs -----------------------------------------------------------------------------------------------------


def _differences(a: Side, b: Side) -> list[Difference]:
    found = _arms_differ(a, b) if a.is_arm else _runs_differ(a, b)
    seen: dict[str, Difference] = {}
    for ours, theirs in _stages(a, b):
        left, right = (None if run.result is None else run.result.numerics.model_dump() for run in (ours, theirs))
        for path, (x, y) in _flat_differences(left or {}, right or {}).items() if left and right else ():
            seen.setdefault(path, Difference(path=path, a=x, b=y, kind="numerics"))
    return [*found, *seen.values()]


def _arms_differ(a: Side, b: Side) -> list[Difference]:
    from ablab.study.differences import differences

    assert a.experiment is not None and b.experiment is not None
    return [Difference(path=p, a=x, b=y) for p, (x, y) in differences(a.experiment, b.experiment).items()]


def _runs_differ(a: Side, b: Side) -> list[Difference]:
    """Return in what the orders of two runs differ: what was asked, and what they read."""
    (ours,), (theirs,) = a.all_runs(), b.all_runs()
    if ours.order is None or theirs.order is None:
        return []
    left, right = (
        {
            "kind": order.kind,
            "task": order.task,
            "seed": order.seed,
            "version": order.version,
            order.stage if order.stage == order.kind else "stage": order.parameters,
            **order.sections,
        }
        for order in (ours.order, theirs.order)
    )
    found = [Difference(path=p, a=x, b=y) for p, (x, y) in _flat_differences(left, right).items()]
    inputs = [{each.reference: f"{each.stage}-{each.key}" for each in run.order.inputs} for run in (ours, theirs)
              if run.order is not None]  # fmt: skip
    read = _flat_differences(*inputs)
    return [*found, *(Difference(path=p, a=x, b=y, kind="input") for p, (x, y) in read.items())]


def _flat_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the leaves in which two nested mappings differ, by dotted path."""
    left, right = dict(_leaves(a)), dict(_leaves(b))
    names = dict.fromkeys([*left, *right])
    return {name: (left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)}


def _leaves(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, item in value.items():
        path = f"{prefix}{name}"
        found += _leaves(item, f"{path}.") if isinstance(item, Mapping) and item else [(path, item)]
    return found


def _stages(a: Side, b: Side) -> list[tuple[Stored, Stored]]:
    """Return runs of the same stage, one of each side."""
    if not a.is_arm:
        return list(zip(a.all_runs(), b.all_runs(), strict=True))
    by_stage = {run.folder.stage: run for run in reversed(b.all_runs())}
    return [(run, by_stage[run.folder.stage]) for run in a.all_runs() if run.folder.stage in by_stage]


# --- Metrics ----------------------------------------------------------------------------------------------------------


def _metric_rows(a: Side, b: Side, pairs: Pairs, metrics: Sequence[str] | None) -> list[MetricRow]:
    ours, theirs = a.metrics(), b.metrics()
    names = list(dict.fromkeys([*ours, *theirs]))
    if metrics:
        from ablab.contract.failure import ConfigError

        known = dict.fromkeys([*names, *a.curves(), *b.curves()])
        for name in metrics:
            if name not in known:
                raise ConfigError(unknown("metric", name, known, of=f"{a.name} and {b.name}"))
        names = [name for name in names if name in metrics]
    else:
        names = [name for name in names if name in ours and name in theirs]
    return [_metric_row(a, b, name, ours.get(name, {}), theirs.get(name, {}), pairs) for name in names]


def _metric_row(
    a: Side, b: Side, metric: str, ours: Mapping[int | None, float], theirs: Mapping[int | None, float], pairs: Pairs
) -> MetricRow:
    both = [(ours[x], theirs[y]) for _, x, y in pairs if x in ours and y in theirs]
    numbers = [*ours.values(), *theirs.values()]
    ratio = all(math.isfinite(number) and number > 0 for number in numbers)
    effect = None
    if both and ratio:
        found = _estimate(log_ratios(both))
        assert found is not None
        ends = [None if end is None else math.exp(end) for end in (found.low, found.high)]
        effect = Estimate(mean=math.exp(found.mean), low=ends[0], high=ends[1], n=found.n)
    elif both:
        effect = _estimate([y - x for x, y in both])
    return MetricRow(
        metric=metric,
        direction=_direction(a, b, metric),
        a=_estimate(list(ours.values())),
        b=_estimate(list(theirs.values())),
        quantity="ratio" if ratio else "difference",
        effect=effect,
    )


def _estimate(values: Sequence[float]) -> Estimate | None:
    if not values or not all(map(math.isfinite, values)):
        return None
    sample = Sample(values=tuple(values))
    interval = sample.interval(CONFIDENCE)
    low, high = (None, None) if interval is None else interval
    return Estimate(mean=sample.mean, low=low, high=high, n=sample.n)


def _direction(a: Side, b: Side, metric: str) -> Literal["lower", "higher"]:
    study = a.study or b.study
    return study.task.metric(metric).direction if study is not None else usual_direction(metric)


# --- Curves -----------------------------------------------------------------------------------------------------------


def _curve_pairs(a: Side, b: Side, pairs: Pairs, metrics: Sequence[str] | None) -> list[CurvePair]:
    ours, theirs = a.curves(), b.curves()
    names = [name for name in ours if name in theirs and (name in metrics if metrics else "/" in name)]
    found = []
    for name in names:
        left = {label: ours[name][x] for label, x, _ in pairs if x in ours[name]}
        right = {label: theirs[name][y] for label, _, y in pairs if y in theirs[name]}
        both = [label for label in left if label in right]
        positive = all(value > 0 for curves in (left, right) for curve in curves.values() for value in curve.values)
        quantity: Literal["ratio", "difference"] = "ratio" if positive else "difference"
        gaps = {
            label: gap(left[label], right[label], variant=b.name, seed=0, quantity=quantity)
            for label in both
        }  # fmt: skip
        if any(len(curve.steps) > 1 for curve in (*left.values(), *right.values())):
            found.append(
                CurvePair(
                    metric=name,
                    direction=_direction(a, b, name),
                    quantity=quantity,
                    a=left,
                    b=right,
                    gaps={label: each for label, each in gaps.items() if each.steps},
                )
            )
    return found


def _facts(a: Side, b: Side) -> list[Fact]:
    """Return parameters, time and memory of both sides: means over their runs, and the highest peak."""
    found = [Fact(name=name, a=_mean(_told(a, name)), b=_mean(_told(b, name))) for name in FACTS]
    found.append(Fact(name="seconds of all stages", a=_seconds(a), b=_seconds(b)))
    found.append(Fact(name="seconds a step, median", a=_mean(_step_times(a)), b=_mean(_step_times(b))))
    found.append(Fact(name="peak bytes", a=max(_peaks(a), default=None), b=max(_peaks(b), default=None)))
    return [fact for fact in found if fact.a is not None or fact.b is not None]


def _told(side: Side, fact: str) -> list[float]:
    values = [run.result.facts.get(fact) for run in side.all_runs() if run.result is not None]
    return [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]


def _step_times(side: Side) -> list[float]:
    results = [run.result for run in side.all_runs() if run.result is not None]
    return [result.steps["median"] for result in results if "median" in result.steps]


def _peaks(side: Side) -> list[float]:
    results = [run.result for run in side.all_runs() if run.result is not None]
    return [float(result.peak.get("gpu") or result.peak["rss"]) for result in results if result.peak.get("rss")]


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _seconds(side: Side) -> float | None:
    """Return the mean over seeds of the seconds of all stages; a run that seeds share counts for each."""
    totals = []
    for runs in side.runs.values():
        times = [sum(run.result.time.values()) for run in runs if run.result is not None]
        if times:
            totals.append(sum(times))
    return _mean(totals)


def _side_json(side: Side) -> dict[str, Any]:
    return {
        "name": side.name,
        "source": side.source,
        "runs": {str(seed): [run.folder.name for run in runs] for seed, runs in side.runs.items()},
    }


def figures(view: PairView) -> list[Curves]:
    """Return the curves of both sides as figures."""
    found = []
    for pair in view.curves:
        traces = [
            Trace(
                arm=side.name,
                seed=place,
                run=label,
                status=_status(side, label),
                steps=curve.steps,
                values=curve.values,
            )
            for side, curves in ((view.a, pair.a), (view.b, pair.b))
            for place, (label, curve) in enumerate(curves.items())
        ]
        found.append(
            Curves(
                kind="curves",
                name="compare-" + pair.metric.replace("/", "-"),
                title=f"{view.b.name} against {view.a.name} (exploratory)",
                traces=tuple(traces),
                y_label=pair.metric,
                better=pair.direction,
                log=pair.quantity == "ratio" and "loss" not in pair.metric,
            )
        )
    return found


def _status(side: Side, label: str) -> str:
    """Return done where every run behind a pair of this name is, else where the first open one stands."""
    runs = [run for seed, rows in side.runs.items() if len(side.runs) == 1 or label == f"seed {seed}" for run in rows]
    return next((run.status for run in runs if run.status != "done"), "done")

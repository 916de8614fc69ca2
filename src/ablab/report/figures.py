"""Figures of a study as data: curves over steps, gaps at equal steps, points and intervals; and their CSV.

Of an arm's complete seeds a figure shows the mean and the range from the lowest to the highest. A seed that is still
running, stopped or failed stands alone under its own name: a mean whose number of seeds changes on the way would jump
where nothing happened. Drawing is `plotting`'s.
"""

from __future__ import annotations

import csv
import io
import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ablab.analysis.curves import gaps, validation_curve
from ablab.report.names import check_metric, comparison_named, experiment_names, split_metric
from ablab.store.layout import safe_name

if TYPE_CHECKING:
    from ablab.analysis.judgement import ComparisonVerdict
    from ablab.analysis.results import Results
    from ablab.study.schema import Comparison, Study

Kind = Literal["curves", "gap", "points"]
KINDS: tuple[Kind, ...] = ("curves", "gap", "points")


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One run's values over steps; `complete` when the run is done."""

    arm: str
    seed: int
    run: str
    status: str
    steps: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def complete(self) -> bool:
        """Whether the run is done, so that its curve has an end."""
        return self.status == "done"


@dataclass(frozen=True, kw_only=True)
class Band:
    """Mean, lowest and highest of `n` complete seeds at the steps all of them cover."""

    arm: str
    n: int
    steps: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Traces of several arms on common axes.

    Args:
        name: file name without ending.
        geometric: means are geometric (ratios).
        rule: a value to draw a line at (the margin), and what it is.
        neutral: where nothing differs; None for plain values.
        order: all arms of the comparison, whose places stand for colours.
    """

    kind: Kind
    name: str
    title: str
    traces: tuple[Trace, ...]
    y_label: str
    better: Literal["lower", "higher"]
    log: bool = False
    geometric: bool = False
    rule: float | None = None
    rule_label: str = ""
    neutral: float | None = None
    order: tuple[str, ...] = ()

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms, in the order of the study."""
        return tuple(dict.fromkeys(trace.arm for trace in self.traces))

    def band(self, arm: str) -> Band | None:
        """Return mean and range of an arm's complete seeds; None where it has none."""
        return band([trace for trace in self.traces if trace.arm == arm and trace.complete], geometric=self.geometric)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An arm of a figure of points: values by seed, interval, and its verdict in words."""

    name: str
    values: tuple[tuple[int | None, float], ...]
    low: float | None
    point: float
    high: float | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Forest:
    """Points and intervals of a comparison's arms on one axis, with the margin of the criterion."""

    kind: Kind
    name: str
    title: str
    arms: tuple[Arm, ...]
    x_label: str
    margin: float | None
    neutral: float | None
    log: bool


Figure = Curves | Forest


def make_figures(
    study: Study,
    results: Results,
    verdicts: Sequence[ComparisonVerdict],
    *,
    kinds: Sequence[Kind] = KINDS,
    metrics: Sequence[str] | None = None,
    arms: Sequence[str] | None = None,
    comparisons: Sequence[str] | None = None,
) -> list[Figure]:
    """Return the figures of a study that have something to show.

    Args:
        study: the study.
        results: its results, with curves.
        verdicts: its verdicts, for points and margins.
        kinds: which to make.
        metrics: names; None takes those the comparisons judge, their validation curves, and the training loss.
        arms: names or patterns; None takes each comparison's.
        comparisons: by name; None takes all.

    Raises:
        ConfigError: a name that the study does not have.
    """
    wanted = set(experiment_names(study, arms))
    chosen = [comparison_named(study, name) for name in comparisons] if comparisons else list(study.comparisons)
    drawn = {name for record in results.runs.values() for name, curve in record.curves.items() if len(curve.steps) > 1}
    named = [check_metric(study, split_metric(text)[0], known=drawn) for text in metrics or ()]
    found: list[Figure] = []
    for comparison in chosen:
        names = [name for name in dict.fromkeys(comparison.arms) if name in wanted]
        metrics_here = [name for name in named or _usual_curves(comparison, drawn) if name in drawn]
        if "curves" in kinds:
            found += [_curves(study, results, comparison, names, metric) for metric in metrics_here]
        if "gap" in kinds:
            found += [
                _gaps(study, results, comparison, names, m) for m in metrics_here if named or not m.startswith("train/")
            ]
        if "points" in kinds:
            found += [_forest(verdict, names) for verdict in verdicts if verdict.comparison == comparison.name]
    if not chosen and "curves" in kinds:
        found += [_curves(study, results, None, list(study.experiments), m) for m in named or sorted(drawn)]
    return [each for each in found if (each.traces if isinstance(each, Curves) else each.arms)]


def _usual_curves(comparison: Comparison, drawn: set[str]) -> list[str]:
    """Return the metric judged, the same one on validation where it is judged elsewhere, and both losses."""
    metric = split_metric(comparison.metric)[0]
    named = (metric, f"val/{metric.rpartition('/')[2]}", "val/loss", "train/loss")
    return [name for name in dict.fromkeys(named) if name in drawn]


def _curves(study: Study, results: Results, comparison: Comparison | None, names: Sequence[str], metric: str) -> Curves:
    defined = study.task.metric(metric)
    return Curves(
        kind="curves",
        name=_file_name("curves", "" if comparison is None else comparison.name, metric),
        title=metric if comparison is None else f"{comparison.name}: {metric}",
        order=() if comparison is None else comparison.arms,
        traces=tuple(_traces(results, names, metric)),
        y_label=metric + (f" ({defined.unit})" if defined.unit else ""),
        better=defined.direction,
        log=defined.log_scale,
    )


def _traces(results: Results, names: Sequence[str], metric: str) -> Iterator[Trace]:
    for name in names:
        seen: set[str] = set()
        for seed in results.seeds(name):
            curve = validation_curve(results, name, seed, metric)
            run, status = _run_of(results, name, seed, metric)
            # Seeds that share one run have one curve.
            if curve is not None and curve.steps and run not in seen:
                seen.add(run)
                yield Trace(arm=name, seed=seed, run=run, status=status, steps=curve.steps, values=curve.values)


def _run_of(results: Results, name: str, seed: int, metric: str) -> tuple[str, str]:
    for stage in reversed(results.study.experiments[name].stages):
        record = results.run(name, seed, stage.name)
        if record is not None and metric in record.curves:
            return record.name, record.status
    return "", ""


def _gaps(study: Study, results: Results, comparison: Comparison, names: Sequence[str], metric: str) -> Curves:
    found = [gap for gap in gaps(results, comparison, metric=metric) if gap.steps and gap.variant in names]
    quantity = found[0].quantity if found else "ratio"
    rule = next((c for c in comparison.criterion.conditions if c.quantity == quantity), None)
    traces = []
    for gap in found:
        ours, theirs = (_run_of(results, name, gap.seed, metric) for name in (gap.variant, comparison.baseline))
        done = ours[1] == theirs[1] == "done"
        status = "done" if done else ours[1] if ours[1] != "done" else f"baseline {theirs[1]}"
        traces.append(
            Trace(arm=gap.variant, seed=gap.seed, run=ours[0], status=status, steps=gap.steps, values=gap.values)
        )
    word = "over" if quantity == "ratio" else "minus"
    return Curves(
        kind="gap",
        name=_file_name("gap", comparison.name, metric),
        title=f"{comparison.name}: gap to {comparison.baseline} at equal steps",
        traces=tuple(traces),
        y_label=f"{metric} {word} {comparison.baseline}",
        better=study.task.metric(metric).direction,
        log=quantity == "ratio",
        geometric=quantity == "ratio",
        rule=None if rule is None else rule.number,
        rule_label="" if rule is None else f"criterion: {comparison.criterion.text}",
        neutral=1.0 if quantity == "ratio" else 0.0,
        order=comparison.arms,
    )


def _forest(verdict: ComparisonVerdict, names: Sequence[str]) -> Forest:
    arms = []
    first = None
    held = [(each, "") for each in verdict.variants]
    held += [(control.verdict, f"control, must {control.expected}: ") for control in verdict.controls]
    for variant, role in held:
        condition = variant.conditions[0] if variant.conditions else None
        if condition is None or condition.point is None or variant.experiment not in names:
            continue
        first = first or condition
        arms.append(
            Arm(
                name=variant.experiment,
                values=tuple((pair.seed, pair.effect) for pair in condition.pairs if pair.effect is not None),
                low=condition.low,
                point=condition.point,
                high=condition.high,
                verdict=f"{role}{variant.verdict}, n = {condition.n}",
            )
        )
    quantity = "value" if first is None else first.quantity
    against = "" if quantity == "value" else f" to {verdict.baseline}"
    return Forest(
        kind="points",
        name=_file_name("points", verdict.comparison, verdict.metric),
        title=f"{verdict.comparison}: points by seed and intervals",
        arms=tuple(arms),
        x_label="" if first is None else f"{first.metric} ({first.at}), {quantity}{against}",
        margin=None if first is None or not verdict.criterion else first.number,
        neutral={"ratio": 1.0, "difference": 0.0}.get(quantity),
        log=quantity == "ratio",
    )


def _file_name(kind: str, comparison: str, metric: str) -> str:
    """Return a file name of parts that may hold anything; slashes of metrics become dashes."""
    return safe_name("-".join(part.replace("/", "-").replace("@", "-") for part in (kind, comparison, metric) if part))


def band(traces: Sequence[Trace], *, geometric: bool = False) -> Band | None:
    """Return mean and range over traces of one arm, at every step that lies inside all of them.

    Traces that were logged at the same steps are taken at these; others are read between their points.
    """
    traces = [trace for trace in traces if trace.steps]
    if not traces:
        return None
    common = set(traces[0].steps).intersection(*(trace.steps for trace in traces))
    shortest = min(len(trace.steps) for trace in traces)
    start, end = max(trace.steps[0] for trace in traces), min(trace.steps[-1] for trace in traces)
    union = common if 2 * len(common) >= shortest else {step for trace in traces for step in trace.steps}
    steps = sorted(step for step in union if start <= step <= end)
    rows = [[_at(trace, step) for trace in traces] for step in steps]
    return Band(
        arm=traces[0].arm,
        n=len(traces),
        steps=tuple(steps),
        mean=tuple(_mean(row, geometric=geometric) for row in rows),
        low=tuple(min(row) for row in rows),
        high=tuple(max(row) for row in rows),
    )


def _at(trace: Trace, step: int) -> float:
    """Return a trace's value at a step inside it, on the straight line between its neighbours."""
    place = bisect_left(trace.steps, step)
    if trace.steps[place] == step:
        return trace.values[place]
    (a, b), (left, right) = trace.steps[place - 1 : place + 1], trace.values[place - 1 : place + 1]
    return left + (right - left) * (step - a) / (b - a)


def _mean(values: Sequence[float], *, geometric: bool) -> float:
    if not all(map(math.isfinite, values)):
        return math.nan
    if geometric and min(values) > 0:
        return math.exp(math.fsum(map(math.log, values)) / len(values))
    return math.fsum(values) / len(values)


def figure_csv(figure: Figure) -> str:
    """Return a figure's numbers, whole: every point of every seed, then mean and range of each arm's complete seeds."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    if isinstance(figure, Forest):
        writer.writerow(("arm", "seed", "value", "low", "estimate", "high", "verdict"))
        for arm in figure.arms:
            for seed, value in arm.values:
                writer.writerow((arm.name, "" if seed is None else seed, value, "", "", "", ""))
            writer.writerow((arm.name, "all", "", _blank(arm.low), arm.point, _blank(arm.high), arm.verdict))
        return stream.getvalue()
    writer.writerow(("arm", "seed", "run", "status", "step", "value", "low", "high", "n"))
    for trace in figure.traces:
        for step, value in zip(trace.steps, trace.values, strict=True):
            writer.writerow((trace.arm, trace.seed, trace.run, trace.status, step, value, "", "", ""))
    for name in figure.arms:
        over = figure.band(name)
        if over is not None:
            for step, mean, low, high in zip(over.steps, over.mean, over.low, over.high, strict=True):
                writer.writerow((name, "mean", "", "", step, mean, low, high, over.n))
    return stream.getvalue()


def _blank(value: float | None) -> float | str:
    return "" if value is None else value

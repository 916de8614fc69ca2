"""Curves over steps: every logged and validated metric with its seeds as a band, and the gap of arms to their baseline.

A curve is thinned so that the whole report stays small; its extremes stay, and validation points stay as long as there
is room.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ablab.report.document import Block, Chart, Curves, Line, Section, Text
from ablab.report.wording import labelled, metric_name

if TYPE_CHECKING:
    from ablab.analysis.results import Curve, RunRecord
    from ablab.report.view import View
    from ablab.study.schema import Comparison

    _Found = tuple[str, RunRecord, Curve]

#: Points of all curves of a report together, and of one curve at least and at most.
POINTS, LEAST, MOST = 240_000, 40, 600
_SPLITS = ("val", "validation", "test", "dev", "eval")


def section(view: View) -> Section:
    """Return the curves of every metric that has more than one point; metrics beyond the room are named."""
    t = view.t
    charts: list[Chart] = []
    room, left_out = POINTS, []
    for metric in _ordered(view):
        for stage, found in _by_stage(_curves_of(view, metric)):
            name = f"{metric} ({stage})" if stage else metric
            each = min(MOST, room // len(found))
            if each < LEAST:
                left_out.append(name)
                continue
            lines = tuple(_line(record, arm, curve, each) for arm, record, curve in found)
            room -= sum(len(line.points) for line in lines)
            charts.append(_chart(view, metric, lines, name=name))
    if not charts:
        return Section(id="curves", title=t("Curves"), blocks=())
    blocks: list[Block] = [Curves(title=t("Curves"), charts=tuple(charts), columns=columns(view))]
    blocks.append(
        Text(
            text=t(
                "A line is the mean over the seeds of an arm, the band reaches from the lowest to the highest seed. "
                "Curves of many points are thinned; their extremes are kept."
            ),
            small=True,
        )
    )
    if left_out:
        blocks.append(
            Text(text=t("Not drawn, to keep the file small: {metrics}.", metrics=t.list(left_out)), small=True)
        )
    return Section(id="curves", title=t("Curves"), blocks=tuple(blocks))


def columns(view: View) -> tuple[str, str, str, str]:
    """Return the heads of the table that stands for a chart where nothing can be drawn."""
    t = view.t
    return (t("arm"), t("first"), t("last"), t("seeds"))


def _ordered(view: View) -> list[str]:
    """Return metrics with curves: those compared, the training loss, other validated ones, the rest."""
    names = dict.fromkeys(name for record in view.results.runs.values() for name in record.curves)
    compared = [metric for item in view.study.comparisons for metric in candidates(item.metric)]
    first = [name for name in dict.fromkeys([*compared, "train/loss"]) if name in names]
    validated = [name for name in names if "/" in name and not name.startswith("train/")]
    return list(dict.fromkeys([*first, *validated, *names]))


def candidates(metric: str) -> list[str]:
    """Return a metric and its namesakes of other splits: what is tested once is validated on the way."""
    name, _ = metric_name(metric)
    split, slash, rest = name.partition("/")
    if not slash or split not in _SPLITS:
        return [name]
    return list(dict.fromkeys([name, *(f"{other}/{rest}" for other in _SPLITS)]))


def _curves_of(view: View, metric: str) -> list[_Found]:
    """Return (arm, run, curve) of every run that has more than one point; a shared run stands with its first arm."""
    found = []
    for record in view.results.runs.values():
        curve = record.curves.get(metric)
        if curve is not None and len(curve.steps) > 1 and record.users:
            found.append((record.users[0][0], record, curve))
    order = {name: place for place, name in enumerate(_arms(view))}
    return sorted(found, key=lambda each: order.get(each[0], len(order)))


def _by_stage(found: list[_Found]) -> list[tuple[str, list[_Found]]]:
    """Return the curves by stage, the stage of most curves first, where an arm has several: phases are no seeds.

    Where each arm has one, they stand together, whatever their stages are called.
    """
    stages: dict[str, list[_Found]] = {}
    for each in found:
        stages.setdefault(each[1].stage, []).append(each)
    several = len({(arm, record.stage) for arm, record, _ in found}) > len({arm for arm, _, _ in found})
    if not several:
        return [("", found)] if found else []
    return sorted(stages.items(), key=lambda one: -len(one[1]))


def _arms(view: View) -> list[str]:
    """Return arms in the order a reader wants to see them: those of the largest comparison first."""
    comparisons = sorted(view.study.comparisons, key=lambda item: len(item.arms), reverse=True)
    return list(dict.fromkeys([*(arm for item in comparisons for arm in item.arms), *view.study.experiments]))


def _chart(view: View, metric: str, lines: tuple[Line, ...], *, name: str) -> Chart:
    t = view.t
    defined = view.study.task.metric(metric)
    known = any(name in metric for name in ("loss", "/")) or bool(defined.description)
    values = [y for line in lines for _, y in line.points if y is not None]
    wide = bool(values) and min(values) > 0 and max(values) > 30 * min(values)
    return Chart(
        title=t("{metric} over steps", metric=name),
        metric=name,
        lines=lines,
        x_label=t("step"),
        y_label=labelled(view.study, metric).rsplit(" ", 1)[0] if known else metric,
        better=defined.direction if known else "",
        log_y=wide or defined.log_scale,
        many=max(len(line.points) for line in lines) > LEAST,
    )


def _line(record: RunRecord, arm: str, curve: Curve, most: int) -> Line:
    return Line(arm=arm, seed=record.seed, run=record.name, points=pairs(curve.steps, curve.values, most))


def pairs(xs: Sequence[float], ys: Sequence[float], most: int) -> tuple[tuple[float, float | None], ...]:
    """Return at most `most` points; None for a y that is not finite."""
    from math import isfinite

    from ablab.analysis.curves import thinned_places

    places: Iterable[int] = range(len(xs)) if len(xs) <= most else thinned_places(ys, points=most)
    return tuple((xs[place], ys[place] if isfinite(ys[place]) else None) for place in places)


def gap_charts(view: View, comparison: Comparison) -> list[Chart]:
    """Return the gap of every variant and seed to its baseline over the validation steps both have."""
    from ablab.analysis.curves import gaps

    t = view.t
    for metric in candidates(comparison.metric):
        found = [gap for gap in gaps(view.results, comparison, metric=metric) if len(gap.steps) > 1]
        if not found:
            continue
        ratio = found[0].quantity == "ratio"
        rule = next((c.number for c in comparison.criterion.conditions if c.quantity == found[0].quantity), None)
        name = t("{metric}, ratio to {baseline}") if ratio else t("{metric}, difference from {baseline}")
        lines = tuple(
            Line(
                arm=gap.variant,
                seed=gap.seed,
                run=_run_of(view, gap.variant, gap.seed, metric),
                points=pairs(gap.steps, gap.values, MOST),
            )
            for gap in found
        )
        return [
            Chart(
                title=t("Gap to {baseline} at equal steps", baseline=comparison.baseline),
                metric=metric,
                lines=lines,
                x_label=t("step"),
                y_label=name.format(metric=metric, baseline=comparison.baseline),
                better=view.study.task.metric(metric).direction,
                rule=rule,
                rule_label="" if rule is None else t("margin {value}", value=t.figure(rule)),
            )
        ]
    return []


def _run_of(view: View, arm: str, seed: int, metric: str) -> str:
    for stage in reversed(view.study.experiments[arm].stages):
        record = view.results.run(arm, seed, stage.name)
        if record is not None and metric in record.curves:
            return record.name
    return ""

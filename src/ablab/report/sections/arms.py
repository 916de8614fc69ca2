"""The arms: what differs, how each went, and its results beside references."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ablab.report.document import Block, Cell, Section, Table, Text, table
from ablab.contract.units import duration, figure

if TYPE_CHECKING:
    from ablab.report.view import View

_ORDER = ("failed", "running", "paused", "waiting", "stopped", "pending", "unresolved", "planned", "done")


def matrix(view: View) -> Section:
    """Return the matrix of experiments: what differs, status, device, started, finished, forecast beside actual."""
    t = view.t
    rows = []
    for name, experiment in view.study.experiments.items():
        records = view.records(name)
        started = [record.started for record in records if record.started]
        finished = [record.finished for record in records if record.finished]
        status = _status(view, name)
        actual = sum(record.wall or 0.0 for record in records)
        estimates = [record.estimate for record in records if record.estimate is not None]
        rows.append(
            (
                name,
                experiment.label or experiment.purpose,
                differing(view, name),
                status,
                ", ".join(dict.fromkeys(record.device for record in records if record.device)) or "—",
                moment(min(started)) if started else "—",
                moment(max(finished)) if finished and status == "done" else "—",
                duration(experiment.estimate if experiment.estimate is not None else sum(estimates) or None),
                duration(actual or None),
            )
        )
    columns = (
        t("experiment"), t("purpose"), t("what differs"), t("status"), t("device"), t("started"), t("finished"),
        t("forecast"), t("actual"),
    )  # fmt: skip
    return Section(id="experiments", title=t("Experiments"), blocks=(table(columns, rows, numeric=(7, 8)),))


def _status(view: View, experiment: str) -> str:
    found = {arm.status for arm in view.results.arms if arm.experiment == experiment}
    return next((status for status in _ORDER if status in found), "pending")


def differing(view: View, experiment: str) -> str:
    """Return in what an arm differs from the baseline of the first comparison it is part of."""
    from ablab.study.differences import differences

    for comparison in view.study.comparisons:
        if experiment == comparison.baseline:
            return "baseline"
        if experiment in comparison.arms:
            found = differences(view.study.experiments[comparison.baseline], view.study.experiments[experiment])
            return ", ".join(f"{path} = {short(theirs)}" for path, (_, theirs) in found.items()) or "nothing"
    return ""


def short(value: Any) -> str:
    """Return a parameter as a reader would write it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def moment(seconds: float) -> str:
    """Return a Unix time as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def results(view: View) -> Section:
    """Return one table of every arm's metrics over seeds, references beside ours and never mixed with them."""
    t = view.t
    metrics = _telling_metrics(view)
    rows: list[tuple[Cell | str, ...]] = []
    for name in view.study.experiments:
        cells: list[Cell | str] = [name]
        for metric, at in metrics:
            cells.append(_mean_cell(view, name, metric, at))
            reference = view.study.references.get(name)
            value = None if reference is None else reference.values.get(metric)
            cells.append("" if value is None else figure(value))
        if any((cell.text if isinstance(cell, Cell) else cell) not in {"", "—"} for cell in cells[1:]):
            rows.append(tuple(cells))
    if not rows:
        return Section(id="results", title=t("Results"), blocks=(Text(text=t("Nothing has finished yet.")),))
    columns = [t("experiment")]
    for metric, at in metrics:
        arrow = "↓" if view.study.task.metric(metric).direction == "lower" else "↑"
        columns += [f"{metric} {arrow}" + (" (best)" if at == "best" else ""), t("reference")]
    blocks: list[Block] = [_without_empty_references(table(columns, rows))]
    blocks.append(Text(text=t("Mean ± half of the 95 % interval over n seeds; references are numbers from elsewhere.")))
    sources = [f"{name}: {reference.source}" for name, reference in view.study.references.items() if reference.source]
    if sources:
        blocks.append(Text(text=f"{t('Sources of references')}: " + "; ".join(sources)))
    return Section(id="results", title=t("Results beside references"), blocks=tuple(blocks))


def _without_empty_references(whole: Table) -> Table:
    """Return the table without reference columns that hold no number (every second column is one)."""
    keep = [
        index
        for index in range(len(whole.columns))
        if index == 0 or index % 2 == 1 or any(cells[index].text for cells in whole.rows)
    ]
    return Table(
        columns=tuple(whole.columns[index] for index in keep),
        rows=tuple(tuple(cells[index] for index in keep) for cells in whole.rows),
        numeric=frozenset(range(1, len(keep))),
    )


def _telling_metrics(view: View) -> list[tuple[str, str]]:
    """Return the metrics comparisons ask for, those references give, then the other final ones of evaluations."""
    asked = [(item.metric.rpartition("@")[0] or item.metric, item.at) for item in view.study.comparisons]
    given = [(name, "last") for reference in view.study.references.values() for name in reference.values]
    others = [(name, "last") for name in view.results.metrics() if not name.startswith("train/")]
    known = set(view.results.metrics()) | {name for name, _ in asked}
    return [pair for pair in dict.fromkeys([*asked, *given, *others]) if pair[0] in known][:8]


def _mean_cell(view: View, experiment: str, metric: str, at: str) -> Cell:
    from ablab.analysis.intervals import Sample

    values = view.results.values(experiment, metric, "best" if at == "best" else "last")
    if not values:
        return Cell(text="—")
    numbers = list(values.values())
    mean = sum(numbers) / len(numbers)
    if len(numbers) == 1:
        return Cell(text=f"{figure(mean)} (n = 1)")
    interval = Sample(values=tuple(numbers)).interval(0.95)
    spread = "" if interval is None else f" ± {figure((interval[1] - interval[0]) / 2, digits=2)}"
    return Cell(text=f"{figure(mean)}{spread} (n = {len(numbers)})")

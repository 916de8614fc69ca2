"""The experiments: what differs, how each went and how long it took; settings told once, and those that vary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablab.contract.units import duration
from ablab.report.document import Block, Cell, Facts, Folded, Section, Text, table, without_empty
from ablab.report.settings import Settings, short, split
from ablab.report.words import STATUS_TONES, STATUSES, word

if TYPE_CHECKING:
    from ablab.report.view import View

#: Settings that vary get a column up to here; more are listed by experiment.
_COLUMNS = 10
#: Experiments whose settings are compared one by one.
_ARMS = 2000


def section(view: View) -> Section:
    """Return the matrix of experiments and the settings."""
    t = view.t
    rows = [_row(view, name) for name in view.study.experiments]
    columns = (
        t("experiment"), t("label"), t("what differs"), t("status"), t("seeds"), t("started"), t("finished"),
        t("forecast"), t("actual"), t("device"),
    )  # fmt: skip
    devices = {row[-1] for row in rows} - {"—"}
    if len(devices) == 1:
        # One device is told once.
        rows = [(*row[:-1], "—") for row in rows]
    blocks: list[Block] = [without_empty(table(columns, rows, numeric=(7, 8)))]
    said = t("Forecast and actual are wall clock of all seeds and stages that no other arm shares.")
    if len(devices) == 1:
        said += " " + t("Device: {device}.", device=next(iter(devices)))
    blocks.append(Text(text=said, small=True))
    return Section(id="experiments", title=t("Experiments"), blocks=(*blocks, *settings(view)))


def _row(view: View, name: str) -> tuple[Cell | str, ...]:
    t = view.t
    experiment = view.study.experiments[name]
    records = view.own(name)
    started = [record.started for record in records if record.started]
    finished = [record.finished for record in records if record.finished]
    status = view.status(name)
    actual = sum(record.wall or 0.0 for record in records)
    seeds = view.results.seeds(name)
    done = sum(arm.status == "done" for arm in view.results.arms if arm.experiment == name)
    return (
        Cell(text=name, link=view.anchor(name)),
        experiment.label,
        differing(view, name),
        Cell(text=word(t, STATUSES, status), tone=STATUS_TONES.get(status, "plain")),
        f"{done}/{len(seeds)}",
        t.when(min(started) if started else None),
        t.when(max(finished) if finished and status == "done" else None),
        duration(forecast(view, name)),
        duration(actual or None),
        ", ".join(dict.fromkeys(record.device for record in records if record.device)) or "—",
    )


def forecast(view: View, name: str) -> float | None:
    """Return the seconds an arm was expected to take: the author's estimate, else the sum of its runs' forecasts."""
    estimate = view.study.experiments[name].estimate
    if estimate is not None:
        return estimate
    found = [view.forecast(record) for record in view.own(name)]
    known = [seconds for seconds in found if seconds is not None]
    return sum(known) if known and len(known) == len(found) else None


def differing(view: View, experiment: str) -> str:
    """Return in what an arm differs from the baseline of the first comparison it is part of."""
    from ablab.study.differences import differences

    t = view.t
    for comparison in view.study.comparisons:
        if experiment == comparison.baseline:
            return t("baseline")
        if experiment in comparison.arms:
            found = differences(view.study.experiments[comparison.baseline], view.study.experiments[experiment])
            return ", ".join(f"{path} = {short(theirs)}" for path, (_, theirs) in found.items()) or t("nothing")
    return ""


def settings(view: View) -> list[Block]:
    """Return the settings all arms share, once, and a table of those that vary."""
    t = view.t
    if len(view.study.experiments) > _ARMS:
        return []
    found = split(view.study)
    blocks: list[Block] = []
    if found.paths:
        blocks.append(Folded(title=t("Settings that vary"), blocks=(_varying(view, found),)))
    if found.fixed:
        items = tuple((path, short(value)) for path, value in found.fixed.items())
        blocks.append(Folded(title=t("Settings of every arm"), blocks=(Facts(items=items),)))
    return blocks


def _varying(view: View, found: Settings) -> Block:
    t = view.t
    if len(found.paths) <= _COLUMNS:
        rows: list[tuple[Cell | str, ...]] = [
            (Cell(text=name, link=view.anchor(name)), *(_setting(values, path) for path in found.paths))
            for name, values in found.varying.items()
        ]
        return table((t("experiment"), *found.paths), rows)
    listed: list[tuple[Cell | str, ...]] = [
        (Cell(text=name, link=view.anchor(name)), ", ".join(f"{path} = {short(values[path])}" for path in values))
        for name, values in found.varying.items()
    ]
    return table((t("experiment"), t("settings")), listed)


def _setting(values: object, path: str) -> str:
    value = values.get(path) if isinstance(values, dict) else None
    return "—" if value is None else short(value)

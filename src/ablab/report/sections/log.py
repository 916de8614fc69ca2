"""The experiment log: findings, issues and resolutions, time, environment, git, plan, commands, outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ablab.contract.result import TIMES
from ablab.report.document import Block, Bullets, Code, Folded, Section, Text, table
from ablab.report.sections.arms import moment
from ablab.contract.units import duration, figure, percent, size

if TYPE_CHECKING:
    from ablab.report.view import View


def findings(view: View) -> Section:
    """Return open findings first, then those the author accepted with a reason."""
    t = view.t
    order = {"error": 0, "warning": 1, "note": 2}
    found = sorted(view.findings, key=lambda item: (item.accepted is not None, order[item.severity]))
    rows = [
        (
            t("accepted") if item.accepted else t(item.severity) if item.checked else t("not checked"),
            item.id,
            item.message,
            item.where + (f", line {item.line}" if item.line else ""),
            item.accepted or item.remedy,
        )
        for item in found
    ]
    columns = (t("severity"), t("finding"), t("what"), t("where"), t("remedy or reason"))
    blocks: tuple[Block, ...] = (table(columns, rows),) if rows else (Text(text=t("No finding.")),)
    return Section(id="findings", title=t("Findings"), blocks=blocks)


def issues(view: View) -> Section:
    """Return every failure with what was done about it."""
    t = view.t
    rows = [
        (
            moment(issue["time"]) if issue.get("time") else "—",
            record.users[0][0] if record.users else "",
            "" if record.seed is None else str(record.seed),
            record.name,
            str(issue.get("kind", "")),
            str(issue.get("message", "")),
            str(issue.get("resolution", "")),
        )
        for record in view.results.runs.values()
        for issue in record.issues
    ]
    columns = (
        t("time"), t("experiment"), t("seed"), t("run"), t("kind"), t("issue"), t("resolution"),
    )  # fmt: skip
    blocks: tuple[Block, ...] = (table(columns, sorted(rows)),) if rows else (Text(text=t("Nothing went wrong.")),)
    return Section(id="issues", title=t("Issues and resolutions"), blocks=blocks)


def time_account(view: View) -> Section:
    """Return where every second went, per arm, with step time, peak memory and marks of shared machines."""
    t = view.t
    rows = []
    for name in view.study.experiments:
        records = [record for record in view.records(name) if record.time]
        if not records:
            continue
        totals = {key: sum(record.time.get(key, 0.0) for record in records) for key in TIMES}
        whole = sum(totals.values()) or 1.0
        steps = [record.step_times["median"] for record in records if "median" in record.step_times]
        peak = max((record.peak.get("rss", 0) for record in records), default=0)
        gpu = max((record.peak.get("gpu", 0) for record in records), default=0)
        rows.append(
            (
                name,
                duration(whole),
                *(percent(totals[key] / whole) for key in TIMES),
                f"{1000 * sorted(steps)[len(steps) // 2]:.3g} ms" if steps else "—",
                size(gpu or peak),
                t("shared") if any(record.shared for record in records) else "",
            )
        )
    columns = (
        t("experiment"), t("wall clock"), *(t(name) for name in TIMES), t("step, median"), t("peak memory"),
        t("timing"),
    )  # fmt: skip
    note = Text(
        text=t(
            "All seeds and stages; the shares sum to the wall clock. Step medians leave warm-up out. "
            "Timings marked shared come from runs that had company on the machine: compare no speeds from them."
        )
    )
    blocks: tuple[Block, ...] = (table(columns, rows, numeric=range(1, 11)), note) if rows else ()
    return Section(id="time", title=t("Time and memory"), blocks=blocks)


def environment(view: View) -> Section:
    """Return the environment and git state of the newest launch."""
    t = view.t
    if not view.launches:
        return Section(id="environment", title=t("Environment"), blocks=())
    newest = view.launches[-1]
    facts = [(name, plain(value)) for name, value in newest.environment.items()]
    git = [(name, plain(value)) for name, value in newest.git.items() if name != "diff"]
    return Section(
        id="environment",
        title=t("Environment"),
        blocks=(
            Folded(title=t("Environment snapshot"), blocks=(table((t("what"), t("found")), facts),)),
            Folded(title=t("Git state"), blocks=(table((t("what"), t("found")), git),)),
        ),
    )


def plain(value: Any) -> str:
    """Return nested facts on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(plain(item) for item in value) or "none"
    return figure(value) if isinstance(value, float) else str(value)


def plan(view: View) -> Section:
    """Return what the plan holds: done and left, forecast, critical path."""
    from ablab.plan.describe import plan_summary

    items = tuple(plan_summary(view.plan))
    return Section(id="plan", title=view.t("Plan"), blocks=(Bullets(items=items),) if items else ())


def commands(view: View) -> Section:
    """Return the exact commands typed, and where the outputs are."""
    t = view.t
    lines = [
        f"# {moment(launch.started) if launch.started else launch.id}\n{launch.command}" for launch in view.launches
    ]
    folder = view.store.study_folder(view.study.name, view.study.profile)
    outputs = (
        f"{t('runs by name')}: `{folder / 'by-name'}`",
        f"{t('this report')}: `{folder / 'report.md'}`",
        f"{t('frozen studies, plans and sources')}: `{view.path('launches')}`",
    )
    blocks: tuple[Block, ...] = (Bullets(items=outputs),)
    if lines:
        blocks = (Code(text="\n".join(lines), language="sh"), *blocks)
    return Section(id="commands", title=t("Commands and outputs"), blocks=blocks)

"""A digest as a document: in a few lines what was decided, then study by study what finished, failed and was noted."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ablab.contract.units import duration, figure
from ablab.report.digest import Decision, Digest, RunLine, StudyDigest
from ablab.report.document import Block, Bullets, Document, Section, Text, table

#: Rows of one table; the rest is counted.
MOST = 40


def document(digest: Digest) -> Document:
    """Return the digest as a document."""
    period = digest.period
    sections = [Section(id="summary", title="Summary", blocks=tuple(_summary(digest)))]
    sections += [
        Section(id=f"study-{place}", title=study.title, blocks=tuple(_study(study)))
        for place, study in enumerate(digest.studies, 1)
    ]
    if digest.problems:
        sections.append(
            Section(id="problems", title="Files that could not be read", blocks=(Bullets(items=digest.problems),))
        )
    return Document(
        title=f"{day(period.since)} to {day(period.until)}",
        subtitle="What finished, failed and was decided, from the store alone.",
        sections=tuple(sections),
    )


def day(moment: float) -> str:
    """Return a Unix time as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _summary(digest: Digest) -> Iterator[Block]:
    if not digest.studies:
        yield Text(text="Nothing happened in this period.")
        return
    rows = [
        (
            study.title,
            str(len(study.finished)),
            duration(study.seconds) if study.finished else "—",
            str(len(study.failed)),
            str(len(study.issues)),
            "; ".join(_headline(decision) for decision in study.decided) or "—",
            str(len(study.notes)),
        )
        for study in digest.studies
    ]
    columns = ("study", "finished", "time of these", "failed", "issues", "decided", "notes")
    yield table(columns, rows, numeric=(1, 2, 3, 4, 6))


def _headline(decision: Decision) -> str:
    if decision.after.get("sensitive") is False:
        return f"{decision.comparison}: not sensitive"
    words = [f"{variant.get('experiment')} {variant.get('verdict')}" for variant, _ in decision.rows()]
    return f"{decision.comparison}: " + (", ".join(words[:4]) + (", ..." if len(words) > 4 else "") or "sensitive now")


def _study(study: StudyDigest) -> Iterator[Block]:
    yield from _decided(study.decided)
    yield from _finished(study)
    yield from _failed(study.failed)
    yield from _issues(study.issues)
    if study.notes:
        yield Text(text="Notes", strong=True)
        yield Bullets(items=tuple(_note(note) for note in study.notes))
    if study.open:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(study.open.items()))
        yield Text(text=f"Still open of what has begun: {counts}.")
    if study.launches:
        yield Text(text="Launches", strong=True)
        yield Bullets(
            items=tuple(f"{day(each['time'])}: `{_code(each.get('command', ''))}`" for each in study.launches)
        )


def _decided(decisions: Sequence[Decision]) -> Iterator[Block]:
    rows = []
    for decision in decisions:
        if decision.after.get("sensitive") is False:
            rows.append(
                (decision.comparison, "all", "", "not sensitive", "a control was not told apart", _when(decision))
            )
        for variant, was in decision.rows():
            rows.append(
                (
                    decision.comparison,
                    str(variant.get("experiment")),
                    was or "—",
                    str(variant.get("verdict")),
                    _evidence(variant),
                    _when(decision),
                )
            )
    if rows:
        yield Text(text="Decided", strong=True)
        yield table(("comparison", "arm", "before", "now", "evidence", "when"), rows)


def _when(decision: Decision) -> str:
    again = f" (changed {decision.changes} times)" if decision.changes > 1 else ""
    return f"{day(decision.after['time'])}{again}"


def _evidence(variant: Mapping[str, Any]) -> str:
    parts = []
    for condition in variant.get("conditions", ()):
        if condition.get("point") is not None:
            low, high = condition.get("low"), condition.get("high")
            interval = "" if low is None or high is None else f" [{figure(low)}, {figure(high)}]"
            parts.append(f"{condition.get('text')}: {figure(condition['point'])}{interval}, n = {condition.get('n')}")
    return "; ".join(parts)


def _finished(study: StudyDigest) -> Iterator[Block]:
    if not study.finished:
        return
    metrics = [name for name in study.metrics if any(name in run.metrics for run in study.finished)]
    arms: dict[str, list[RunLine]] = {}
    for run in study.finished:
        arms.setdefault(run.arm, []).append(run)
    rows = [
        (
            arm,
            _stages(runs),
            duration(sum(run.seconds for run in runs)),
            *(_mean(runs, metric) for metric in metrics),
            day(max(run.state.finished or run.state.updated for run in runs)),
        )
        for arm, runs in sorted(arms.items())
    ]
    yield Text(text="Finished", strong=True)
    columns = ("experiment", "stages and seeds", "time", *metrics, "last")
    yield table(columns, rows[:MOST], numeric=range(2, 3 + len(metrics)))
    if len(rows) > MOST:
        yield Text(text=f"... and {len(rows) - MOST} more experiments.")


def _stages(runs: Sequence[RunLine]) -> str:
    """Return the stages that finished with their seeds: `train 42, 123; evaluate 42`."""
    stages: dict[str, list[int]] = {}
    for run in sorted(runs, key=lambda run: (run.state.finished or 0.0, run.seed or 0)):
        seeds = stages.setdefault(run.stage, [])
        if run.seed is not None:
            seeds.append(run.seed)
    return "; ".join(f"{name} {', '.join(map(str, sorted(seeds)))}".strip() for name, seeds in stages.items())


def _mean(runs: Sequence[RunLine], metric: str) -> str:
    values = [run.metrics[metric] for run in runs if metric in run.metrics and math.isfinite(run.metrics[metric])]
    return f"{figure(math.fsum(values) / len(values))} (n = {len(values)})" if values else "—"


def _failed(runs: Sequence[RunLine]) -> Iterator[Block]:
    if runs:
        yield Text(text="Failed", strong=True)
        rows = [(r.arm, _seed(r), r.stage, r.state.kind or "", r.state.message, r.folder.name) for r in runs]
        yield table(("experiment", "seed", "stage", "kind", "message", "run"), rows[:MOST])


def _issues(issues: Sequence[tuple[RunLine, Mapping[str, Any]]]) -> Iterator[Block]:
    if issues:
        yield Text(text="Issues and resolutions", strong=True)
        rows = [
            (
                day(float(issue["time"])),
                run.arm,
                _seed(run),
                run.stage,
                *(str(issue.get(name, "")) for name in ("kind", "message", "resolution")),
            )
            for run, issue in sorted(issues, key=lambda each: float(each[1]["time"]))
        ]
        yield table(("time", "experiment", "seed", "stage", "kind", "issue", "resolution"), rows[:MOST])
        if len(rows) > MOST:
            yield Text(text=f"... and {len(rows) - MOST} more issues.")


def _seed(run: RunLine) -> str:
    return "" if run.seed is None else str(run.seed)


def _note(note: Any) -> str:
    about = " ".join(part for part in (note.experiment, note.metric) if part)
    return f"{day(note.time)}, {note.kind}{f' on {about}' if about else ''}: {note.text}"


def _code(text: str) -> str:
    return str(text).replace("`", "'")


def as_json(digest: Digest) -> dict[str, Any]:
    """Return the digest as plain values."""
    return {
        "since": digest.period.since,
        "until": digest.period.until,
        "problems": list(digest.problems),
        "studies": [
            {
                "study": study.study,
                "profile": study.profile,
                "launches": [{"id": each.get("id"), "time": each.get("time")} for each in study.launches],
                "finished": [_run_json(run) for run in study.finished],
                "seconds": study.seconds,
                "failed": [
                    _run_json(run) | {"kind": run.state.kind, "message": run.state.message} for run in study.failed
                ],
                "issues": [{"run": run.folder.name, **issue} for run, issue in study.issues],
                "decided": [
                    {"comparison": d.comparison, "changes": d.changes, "before": d.before, "after": d.after}
                    for d in study.decided
                ],
                "notes": [note.as_json() for note in study.notes],
                "open": study.open,
            }
            for study in digest.studies
        ],
    }


def _run_json(run: RunLine) -> dict[str, Any]:
    return {
        "run": run.folder.name,
        "experiment": run.arm,
        "seed": run.seed,
        "stage": run.stage,
        "time": run.state.finished,
    }

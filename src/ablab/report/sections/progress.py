"""How far each run came: what is going on now, and the training progress of every run that has steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablab.contract.units import duration, size
from ablab.report.document import Block, Cell, Folded, Heading, Section, Table, table, without_empty
from ablab.report.words import FAILURES, STATUS_TONES, STATUSES, word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ablab.analysis.results import RunRecord
    from ablab.report.view import View

#: Tables longer than this are folded.
_LONG = 40
_GOING = ("running", "failed", "paused", "waiting", "stopped")


def section(view: View) -> Section:
    """Return progress rows of what is unfinished, and training progress of all runs."""
    t = view.t
    blocks: list[Block] = []
    going = _going(view)
    if going is not None:
        blocks += [Heading(text=t("Under way")), going]
    trained = [record for record in view.results.runs.values() if is_training(record)]
    if trained:
        whole = training_table(view, trained)
        title = t("Training progress of {count} runs", count=t.count(len(trained)))
        blocks += (
            [Heading(text=t("Training progress")), whole]
            if len(trained) <= _LONG
            else [Folded(title=title, blocks=(whole,))]
        )
    return Section(id="progress", title=t("Progress"), blocks=tuple(blocks))


def _going(view: View) -> Table | None:
    """Return one row for every run that has begun and is not done; None without any."""
    if not any(run.status in _GOING for run in view.plan.runs.values()):
        return None
    from ablab.report.status import study_rows

    t = view.t
    rows = [
        (
            Cell(text=row.experiment, link=view.anchor(row.experiment)),
            "—" if row.seed is None else str(row.seed),
            Cell(text=row.run, code=True),
            Cell(text=word(t, STATUSES, row.status), tone=STATUS_TONES.get(row.status, "plain")),
            t.percent(row.progress),
            f"{t.count(row.step)}/{t.count(row.steps)}" if row.steps else "",
            duration(row.elapsed),
            duration(row.remaining) if row.status == "running" else "",
            f"{t.figure(row.per_second, digits=3)}" if row.per_second else "",
            t.figure(row.loss) if row.loss is not None else "",
            f"{t.figure(row.best)} {row.best_metric}" if row.best is not None else "",
            f"{t.signed(100 * (row.gap - 1))} % @{row.gap_step}" if row.gap is not None else "",
            row.device,
            size(row.memory) if row.memory else "",
            Cell(text=row.message, foreign=True),
        )
        for row in study_rows(view.study, view.plan, view.store)
        if row.status in _GOING
    ]
    columns = (
        t("experiment"), t("seed"), t("run"), t("status"), "%", t("step"), t("elapsed"), t("left"), t("steps/s"),
        t("loss"), t("best"), t("gap at equal steps"), t("device"), t("memory"), t("message"),
    )  # fmt: skip
    return without_empty(table(columns, rows, numeric=(1, 4, 5, 6, 7, 8, 9, 11, 13)))


def is_training(record: RunRecord) -> bool:
    """Whether a run has steps to tell of."""
    return bool(record.curves) or bool(record.step_times)


def training_table(view: View, records: Sequence[RunRecord]) -> Table:
    """Return first, final and best values, checkpoints, throughput, memory and ending, one row a run."""
    t = view.t
    rows = [_row(view, record) for record in records]
    columns = (
        t("experiment"), t("seed"), t("run"), t("status"), t("step"), t("samples"), t("tokens"), t("epochs"),
        t("first loss"), t("final loss"), t("best value"), t("checkpoints"), t("wall clock"), t("step, median"),
        t("throughput"), t("GPU use"), t("peak memory"), t("GPU memory"), t("attempts"), t("exit"),
    )  # fmt: skip
    return without_empty(table(columns, rows, numeric=(1, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 18)))


def _row(view: View, record: RunRecord) -> tuple[Cell | str, ...]:
    t = view.t
    arm = record.users[0][0] if record.users else ""
    loss = record.curves.get("train/loss")
    steps = record.facts.get("steps.done", record.step)
    return (
        Cell(text=arm, link=view.anchor(arm)),
        "—" if record.seed is None else str(record.seed),
        Cell(text=record.name, code=True),
        Cell(text=word(t, STATUSES, record.status), tone=STATUS_TONES.get(record.status, "plain")),
        _count(view, steps),
        _count(view, record.facts.get("samples.seen")),
        "" if _counts_samples(record) else _count(view, record.facts.get("tokens.seen")),
        t.figure(record.facts["epochs.seen"], digits=3) if "epochs.seen" in record.facts else "",
        t.figure(loss.values[0]) if loss is not None and loss.values else "",
        t.figure(loss.values[-1]) if loss is not None and loss.values else "",
        _best(view, record),
        _checkpoints(view, record),
        duration(record.wall),
        f"{t.figure(1000 * record.step_times['median'], digits=3)} ms" if "median" in record.step_times else "",
        _throughput(view, record),
        t.percent(record.utilisation) if record.utilisation is not None else "",
        size(record.peak["rss"]) if record.peak.get("rss") else "",
        size(record.peak["gpu"]) if record.peak.get("gpu") else "",
        str(record.attempts or ""),
        word(t, FAILURES, "done" if record.done else record.failure or ""),
    )


def _count(view: View, value: object) -> str:
    return view.t.count(round(value)) if isinstance(value, int | float) else ""


def _best(view: View, record: RunRecord) -> str:
    """Return the best value of the metric that is compared, or of the first that has one, and its step."""
    compared = [item.metric.partition("@")[0] for item in view.study.comparisons]
    name = next((metric for metric in (*compared, *record.best) if metric in record.best), "")
    if not name:
        return ""
    value, step = record.best[name]
    return f"{name} {view.t.figure(value)} @{view.t.count(step)}"


def _checkpoints(view: View, record: RunRecord) -> str:
    """Return how many checkpoints were written and the steps of the last and the best."""
    t = view.t
    if not record.checkpoints:
        return ""
    tagged = {tag: event.get("step") for event in record.checkpoints for tag in event.get("tags") or ()}
    names = {"last": t("last"), "best": t("best"), "keep": t("kept")}
    shown = ", ".join(f"{names.get(tag, tag)} @{step}" for tag, step in tagged.items() if tag in names)
    count = t.n("{n} written", "{n} written", len(record.checkpoints))
    return f"{count}: {shown}" if shown else count


def _counts_samples(record: RunRecord) -> bool:
    """Whether what the loss sums over are the samples themselves (queries, pictures), and not tokens of them."""
    tokens = record.facts.get("tokens.seen")
    return tokens is not None and tokens == record.facts.get("samples.seen")


def _throughput(view: View, record: RunRecord) -> str:
    """Return tokens, samples or steps a second, whichever says most."""
    t = view.t
    units = {
        "tokens_per_second": t("tokens/s"),
        "pairs_per_second": t("pairs/s"),
        "samples_per_second": t("samples/s"),
        "per_second": t("steps/s"),
    }
    if _counts_samples(record):
        del units["tokens_per_second"]
    for name, unit in units.items():
        if record.step_times.get(name):
            return f"{t.figure(record.step_times[name], digits=3)} {unit}"
    return ""

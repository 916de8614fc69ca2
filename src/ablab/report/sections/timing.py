"""Where every second went, and what each arm took of the machine; forecasts beside what it really took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablab.contract.result import TIMES
from ablab.contract.units import duration, size
from ablab.report.document import Bars, Block, Cell, Section, Text, table, without_empty
from ablab.report.sections.matrix import forecast
from ablab.report.words import TIMES as WORDS
from ablab.report.words import word

if TYPE_CHECKING:
    from ablab.analysis.results import RunRecord
    from ablab.report.view import View

#: Bars drawn; the table holds all arms.
_BARS = 30
#: What stands beside an epoch, where a run has it.
_SCORES = ("train/loss", "train/r_at_1", "val/loss", "val/r_at_1")


def section(view: View) -> Section:
    """Return time by name as bars and table, step times, peaks, marks of shared machines, and speeds."""
    t = view.t
    found = {name: [record for record in view.own(name) if record.time] for name in view.study.experiments}
    arms = {name: records for name, records in found.items() if records}
    if not arms:
        return Section(id="time", title=t("Time and memory"), blocks=())
    blocks: list[Block] = [_bars(view, arms), _table(view, arms)]
    blocks.append(
        Text(
            text=t(
                "All seeds and stages of an arm that no other arm shares; the parts sum to the wall clock. Medians of "
                "steps leave warm-up out. Timings marked shared are of runs that had company on the machine: that is "
                "contention, not speed."
            ),
            small=True,
        )
    )
    more = [block for block in (_epochs(view), _speeds(view)) if block is not None]
    return Section(id="time", title=t("Time and memory"), blocks=(*blocks, *more))


def _bars(view: View, arms: dict[str, list[RunRecord]]) -> Bars:
    t = view.t
    names = [name for name in TIMES if any(record.time.get(name) for records in arms.values() for record in records)]
    rows = []
    for arm, records in list(arms.items())[:_BARS]:
        totals = tuple(sum(record.time.get(name, 0.0) for record in records) for name in names)
        rows.append((arm, totals, duration(sum(totals))))
    return Bars(
        title=t("Wall clock of each arm by what it was spent on, in seconds"),
        parts=tuple(word(t, WORDS, name) for name in names),
        rows=tuple(rows),
        unit="s",
    )


def _table(view: View, arms: dict[str, list[RunRecord]]) -> Block:
    t = view.t
    rows: list[tuple[Cell | str, ...]] = []
    for arm, records in arms.items():
        totals = {name: sum(record.time.get(name, 0.0) for record in records) for name in TIMES}
        whole = sum(totals.values())
        steps = sorted(record.step_times["median"] for record in records if "median" in record.step_times)
        tails = sorted(record.step_times["p95"] for record in records if "p95" in record.step_times)
        shared = any(record.shared for record in records)
        expected = forecast(view, arm)
        rows.append(
            (
                Cell(text=arm, link=view.anchor(arm)),
                duration(expected),
                duration(whole),
                f"{t.signed(100 * (whole / expected - 1))} %" if expected else "",
                *(t.percent(totals[name] / whole if whole else 0.0) for name in TIMES),
                f"{t.figure(1000 * steps[len(steps) // 2], digits=3)} ms" if steps else "—",
                f"{t.figure(1000 * tails[-1], digits=3)} ms" if tails else "—",
                size(max((record.peak.get("rss", 0) for record in records), default=0) or None),
                size(max((record.peak.get("gpu", 0) for record in records), default=0) or None),
                Cell(text=t("shared"), tone="open") if shared else "",
            )
        )
    columns = (
        t("experiment"), t("forecast"), t("wall clock"), t("off by"), *(word(t, WORDS, name) for name in TIMES),
        t("step, median"), t("step, 95th percentile"), t("peak memory"), t("GPU memory"), t("timing"),
    )  # fmt: skip
    return without_empty(table(columns, rows, numeric=range(1, 15)))


def _epochs(view: View) -> Block | None:
    """Return one epoch of each arm's data: without loading and warm-up, and with."""
    from ablab.analysis.timing import epochs

    t = view.t
    rows: list[tuple[Cell | str, ...]] = []
    for epoch in epochs(view.results):
        record = view.results.runs[_run_of(view, epoch.experiment, epoch.seed, epoch.stage)]
        scores = [_last(record, name) for name in _SCORES]
        rows.append(
            (
                Cell(text=epoch.experiment, link=view.anchor(epoch.experiment)),
                str(epoch.seed),
                epoch.stage,
                "—" if epoch.samples is None else t.figure(epoch.samples, digits=9),
                t.figure(epoch.steps, digits=9),
                "—" if epoch.epochs is None else t.figure(epoch.epochs, digits=3),
                duration(epoch.net),
                duration(epoch.gross),
                duration(epoch.whole),
                t.figure(epoch.per_second, digits=3) if epoch.per_second is not None else "—",
                size(epoch.rss),
                size(epoch.gpu),
                epoch.ended,
                *("—" if score is None else t.figure(score, digits=4) for score in scores),
                Cell(text=t("shared"), tone="open") if epoch.shared else "",
            )
        )
    if not rows:
        return None
    columns = (
        t("experiment"), t("seed"), t("stage"), t("samples"), t("steps"), t("epochs run"), t("one epoch"),
        t("with loading and warm-up"), t("whole run"), t("samples a second"), t("peak memory"), t("GPU memory"),
        t("exit"), *_SCORES, t("timing"),
    )  # fmt: skip
    caption = t("One epoch of each arm's data, without waiting for data and warm-up, and with")
    return without_empty(table(columns, rows, caption=caption, numeric=range(3, 17)))


def _last(record: RunRecord, metric: str) -> float | None:
    """Return a metric of a run, else the last value that it logged."""
    curve = record.curves.get(metric)
    return record.metrics.get(metric, curve.values[-1] if curve is not None and curve.values else None)


def _run_of(view: View, experiment: str, seed: int, stage: str) -> str:
    return next(arm.runs[stage] for arm in view.results.arms if (arm.experiment, arm.seed) == (experiment, seed))


def _speeds(view: View) -> Block | None:
    """Return step-time ratios to the baseline, only between runs that had their machine alone."""
    from ablab.analysis.timing import speed_ratios

    t = view.t
    rows: list[tuple[Cell | str, ...]] = []
    refused = 0
    for comparison in view.study.comparisons:
        for ratio in speed_ratios(view.results, comparison.baseline, comparison.arms[1:]):
            if not ratio.comparable:
                refused += 1
                continue
            rows.append(
                (
                    comparison.name,
                    Cell(text=ratio.variant, link=view.anchor(ratio.variant)),
                    str(ratio.seed),
                    ratio.stage,
                    t.figure(ratio.ratio, digits=3),
                )
            )
    if rows:
        columns = (t("comparison"), t("arm"), t("seed"), t("stage"), t("step time, ratio to the baseline ↓"))
        return table(columns, rows, caption=t("Speed, of runs that had their machine alone"), numeric=(2, 4))
    if refused:
        return Text(
            text=t.n(
                "No speed is compared: {n} pair of runs shared a machine or ran on different devices.",
                "No speed is compared: {n} pairs of runs shared a machine or ran on different devices.",
                refused,
            )
        )
    return None

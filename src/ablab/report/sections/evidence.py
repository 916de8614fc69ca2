"""The evidence under each verdict: points and intervals, the table of arms, gaps over steps, points with their runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ablab.report.document import Answer, Block, Bullets, Cell, Folded, Heading, Points, Section, Text, table
from ablab.report.sections.curves import gap_charts
from ablab.report.sections.decomposition import blocks as decomposition
from ablab.report.sections.verdicts import card
from ablab.report.wording import amount, condition_words
from ablab.report.words import QUANTITIES, VERDICTS, word

if TYPE_CHECKING:
    from ablab.analysis.judgement import ComparisonVerdict, ConditionVerdict, VariantVerdict
    from ablab.report.document import Card
    from ablab.report.view import View


def section(view: View) -> Section:
    """Return the evidence of every comparison."""
    t = view.t
    blocks = [block for verdict in view.verdicts for block in _comparison(view, verdict)]
    if blocks:
        blocks.append(
            Text(
                text=t(
                    "Intervals are Student's t over pairs of equal seeds, each drawn at its step of Holm's procedure. "
                    "met: the whole interval satisfies the criterion; not met: none of it does; undecided: all else."
                ),
                small=True,
            )
        )
    return Section(id="evidence", title=t("Evidence"), blocks=tuple(blocks))


def _comparison(view: View, verdict: ComparisonVerdict) -> Iterator[Block]:
    t = view.t
    shown = card(view, verdict)
    yield Heading(text=verdict.comparison, id=shown.link)
    if shown.question:
        yield Text(text=shown.question)
    yield Text(text=t("Criterion: {asked}. Baseline: {baseline}.", asked=shown.asked, baseline=verdict.baseline))
    if shown.warnings:
        yield Bullets(items=shown.warnings)
    drawn = tuple(answer for answer in shown.answers if answer.point is not None)
    if drawn:
        yield points(view, shown, drawn)
    yield _arms(view, verdict, shown)
    yield from gap_charts(view, next(item for item in view.study.comparisons if item.name == verdict.comparison))
    every = [row for variant in _all(verdict) for row in _pairs(view, verdict, variant)]
    if every:
        yield Folded(title=t("Every point and the runs it comes from"), blocks=(_points_table(view, every),))
    yield from decomposition(view, verdict)


def points(view: View, shown: Card, drawn: tuple[Answer, ...]) -> Points:
    """Return the points and intervals of the first condition on one axis."""
    t = view.t
    return Points(
        title=t("Points and intervals of {comparison}", comparison=shown.name),
        answers=drawn,
        axis=shown.axis,
        margin=shown.margin,
        margin_label="" if shown.margin is None else t("margin {value}", value=t.figure(shown.margin)),
        neutral=shown.neutral,
        holds=shown.holds,
        log=shown.log,
    )


def _arms(view: View, verdict: ComparisonVerdict, shown: Card) -> Block:
    t = view.t
    rows: list[tuple[Cell | str, ...]] = []
    for variant, said in zip(_all(verdict), shown.answers, strict=True):
        conditions = [c for c in variant.conditions if c.point is not None] or list(variant.conditions[:1])
        for place, condition in enumerate(conditions):
            name = Cell(text=said.arm, link=said.link, note=said.role) if place == 0 else Cell(text="")
            outcome = Cell(text=said.word, tone=said.tone) if place == 0 else word(t, VERDICTS, condition.verdict)
            rows.append(
                (
                    name,
                    outcome,
                    condition_words(t, condition, verdict.baseline) if verdict.criterion else condition.metric,
                    *_numbers(view, condition),
                )
            )
    columns = (
        t("arm"), t("verdict"), t("criterion"), t("estimate"), t("interval"), t("level"), t("n"), t("p"),
    )  # fmt: skip
    return table(columns, rows, numeric=(3, 4, 5, 6, 7))


def _numbers(view: View, condition: ConditionVerdict) -> tuple[Cell | str, ...]:
    """Return estimate, interval, level, n and p of a condition."""
    t = view.t
    if condition.point is None:
        return ("—", "—", "—", str(condition.n), "—")
    quantity = word(t, QUANTITIES, condition.quantity)
    note = amount(t, condition, condition.point) if condition.quantity == "ratio" else ""
    interval, level = "—", "—"
    if condition.low is not None and condition.high is not None and condition.level is not None:
        interval = f"{t.figure(condition.low)} – {t.figure(condition.high)}"
        level = t.percent(condition.level, digits=0 if condition.level == 0.95 else 1)
    return (
        Cell(text=f"{quantity} {t.figure(condition.point)}", note=note),
        interval,
        level,
        str(condition.n),
        "—" if condition.p is None else t.figure(condition.p, digits=2),
    )


def _pairs(view: View, verdict: ComparisonVerdict, variant: VariantVerdict) -> Iterator[tuple[Cell | str, ...]]:
    """Yield every point of a variant with the runs its two values come from."""
    t = view.t
    for condition in variant.conditions:
        for pair in condition.pairs:
            seed = "—" if pair.seed is None else str(pair.seed)
            yield (
                Cell(text=variant.experiment, link=view.anchor(variant.experiment)),
                seed,
                condition.metric,
                "—" if pair.baseline is None else _value(view, verdict.baseline, pair.seed, condition, pair.baseline),
                _value(view, variant.experiment, pair.seed, condition, pair.variant),
                "—" if pair.effect is None else t.figure(pair.effect),
                Cell(text=_run(view, variant.experiment, pair.seed, condition.metric), code=True),
                Cell(text=_run(view, verdict.baseline, pair.seed, condition.metric), code=True),
            )


def _value(view: View, arm: str, seed: int | None, condition: ConditionVerdict, number: float) -> Cell:
    return Cell(text=view.t.figure(number, digits=6), run=_run(view, arm, seed, condition.metric))


def _run(view: View, arm: str, seed: int | None, metric: str) -> str:
    """Return the folder of the run a value comes from."""
    results = view.results
    asked = results.seeds(arm)
    for candidate in asked if seed is None or seed not in asked else (seed,):
        value = results.value(arm, candidate, metric)
        record = None if value is None else results.runs.get(value.key)
        if record is not None:
            return record.name
    return ""


def _points_table(view: View, rows: list[tuple[Cell | str, ...]]) -> Block:
    t = view.t
    columns = (
        t("arm"), t("seed"), t("metric"), t("baseline's value"), t("arm's value"), t("effect"), t("run of the arm"),
        t("run of the baseline"),
    )  # fmt: skip
    return table(columns, rows, numeric=(1, 3, 4, 5))


def _all(verdict: ComparisonVerdict) -> tuple[VariantVerdict, ...]:
    return (*verdict.variants, *(control.verdict for control in verdict.controls))

"""Verdicts first: one overview row a comparison, then the points and intervals behind each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ablab.report.document import Block, Bullets, Cell, Points, Section, Text, Tone, table
from ablab.contract.units import figure
from ablab.report.verdicts import condition_text

if TYPE_CHECKING:
    from ablab.analysis.judgement import ComparisonVerdict, VariantVerdict
    from ablab.report.view import View

TONES: dict[str, Tone] = {"met": "good", "not met": "bad", "undecided": "open"}


def section(view: View) -> Section:
    """Return the verdicts of every comparison."""
    t = view.t
    if not view.verdicts:
        return Section(id="verdicts", title=t("Verdicts"), blocks=(Text(text=t("The study compares nothing.")),))
    rows = [
        (verdict.comparison, verdict.baseline, f"{verdict.metric} {verdict.criterion}", _overview(view, verdict))
        for verdict in view.verdicts
    ]
    overview = table((t("comparison"), t("baseline"), t("criterion"), t("verdict")), rows)
    blocks = [overview, *(block for verdict in view.verdicts for block in _comparison(view, verdict))]
    return Section(id="verdicts", title=t("Verdicts"), blocks=tuple(blocks))


def _overview(view: View, verdict: ComparisonVerdict) -> Cell:
    t = view.t
    if verdict.sensitive is False:
        return Cell(text=t("not sensitive: no verdict"), tone="open")
    text = "; ".join(f"{variant.experiment}: {t(variant.verdict)}" for variant in verdict.variants)
    kinds = {variant.verdict for variant in verdict.variants}
    return Cell(text=text, tone=TONES[kinds.pop()] if len(kinds) == 1 else "plain")


def _comparison(view: View, verdict: ComparisonVerdict) -> Iterator[Block]:
    t = view.t
    declared = next(item for item in view.study.comparisons if item.name == verdict.comparison)
    yield Text(text=f"{verdict.comparison}. {declared.question or verdict.text}", strong=True)
    if declared.question and verdict.text:
        yield Text(text=verdict.text)
    rows = [_variant_row(view, variant) for variant in verdict.variants]
    rows += [
        (
            f"{control.experiment} ({t('control, must ' + control.expected)})",
            Cell(
                text=t("as it must") if control.told else t("unknown yet") if control.told is None else t("not told"),
                tone="good" if control.told else "open",
            ),
            *_numbers(control.verdict),
        )
        for control in verdict.controls
    ]
    columns = (
        t("arm"), t("verdict"), t("estimate and interval"), t("n"), t("p"), t("points by seed"), t("why"),
    )  # fmt: skip
    yield table(columns, rows, numeric=(3, 4))
    yield from _points(view, verdict)
    caveats = [f"{t('Caveat')}: {text}" for text in verdict.caveats]
    if verdict.exploratory:
        caveats.append(t("Exploratory: no criterion was stated before the runs."))
    if caveats:
        yield Bullets(items=tuple(caveats))


def _variant_row(view: View, variant: VariantVerdict) -> tuple[Cell | str, ...]:
    verdict = Cell(
        text=view.t(variant.verdict),
        tone=TONES[variant.verdict],
        note=view.t("provisional: seeds are missing") if variant.provisional else "",
    )
    return (variant.experiment, verdict, *_numbers(variant))


def _numbers(variant: VariantVerdict) -> tuple[str, str, str, str, str]:
    """Return estimate, n, p, points and reason of an arm."""
    shown = [condition for condition in variant.conditions if condition.point is not None]
    pairs = [
        ("" if pair.seed is None else f"{pair.seed}: ") + figure(pair.effect)
        for condition in shown[:1]
        for pair in condition.pairs
    ]
    return (
        "; ".join(condition_text(condition).rpartition(", n =")[0] for condition in shown) or "—",
        str(min((condition.n for condition in shown), default=0)),
        f"{variant.p:.2g}" if shown else "—",
        ", ".join(pairs),
        variant.reason,
    )


def _points(view: View, verdict: ComparisonVerdict) -> Iterator[Block]:
    """Draw the points and intervals of the first condition on one axis."""
    first = [
        (arm.experiment, arm.conditions[0], arm.verdict)
        for arm in (*verdict.variants, *(control.verdict for control in verdict.controls))
        if arm.conditions and arm.conditions[0].point is not None
    ]
    if not first:
        return
    condition = first[0][1]
    yield Points(
        title=view.t("Points and intervals"),
        items=tuple(
            (
                name,
                tuple(pair.effect for pair in found.pairs if pair.effect is not None),
                found.low,
                found.point,
                found.high,
                TONES[outcome],
            )
            for name, found, outcome in first
        ),
        margin=condition.number,
        label=f"{condition.metric} {condition.quantity}",
        log=condition.quantity == "ratio",
    )

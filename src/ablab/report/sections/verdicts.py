"""Verdicts first: one overview row a comparison, made for a stranger with ten seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablab.report.document import Card, Cards, Section, Text, Tone
from ablab.report.wording import answer, asked, control_answer, labelled
from ablab.report.words import QUANTITIES, TONES, VERDICTS, word

if TYPE_CHECKING:
    from ablab.analysis.judgement import ComparisonVerdict
    from ablab.report.view import View

#: The order of badges: what was decided first.
_VERDICTS = ("met", "not met", "undecided")


def section(view: View) -> Section:
    """Return the verdicts of every comparison."""
    t = view.t
    if not view.verdicts:
        return Section(id="verdicts", title=t("Verdicts"), blocks=(Text(text=t("The study compares nothing.")),))
    cards = Cards(
        cards=tuple(card(view, verdict) for verdict in view.verdicts),
        columns=(t("comparison"), t("criterion"), t("verdict")),
    )
    return Section(id="verdicts", title=t("Verdicts"), blocks=(cards,))


def card(view: View, verdict: ComparisonVerdict) -> Card:
    """Return the verdict on one comparison."""
    t = view.t
    declared = next(item for item in view.study.comparisons if item.name == verdict.comparison)
    answers = tuple(answer(view, variant, verdict) for variant in verdict.variants)
    controls = tuple(control_answer(view, control, verdict) for control in verdict.controls)
    first = next((c for v in verdict.variants for c in v.conditions if c.point is not None), None)
    quantity = "" if first is None else word(t, QUANTITIES, first.quantity)
    criterion = bool(declared.criterion.conditions)
    return Card(
        name=verdict.comparison,
        link=view.comparison_anchor(verdict.comparison),
        question=declared.question,
        asked=asked(t, verdict),
        badges=_badges(view, verdict),
        answers=(*answers, *controls),
        margin=first.number if first is not None and criterion else None,
        neutral=None if first is None else {"ratio": 1.0, "difference": 0.0}.get(first.quantity),
        holds="" if first is None or not criterion else "below" if first.operator in ("<=", "<") else "above",
        log=first is not None and first.quantity == "ratio",
        axis=""
        if first is None
        else t("{metric}, {quantity}", metric=labelled(view.study, first.metric), quantity=quantity),
        warnings=warnings(view, verdict),
    )


def _badges(view: View, verdict: ComparisonVerdict) -> tuple[tuple[str, Tone, tuple[str, ...]], ...]:
    t = view.t
    arms = tuple(variant.experiment for variant in verdict.variants)
    if verdict.sensitive is False:
        return ((t("not sensitive"), "blind", arms),)
    if verdict.variants and all(variant.code == "exploratory" for variant in verdict.variants):
        return ((t("no criterion"), "plain", arms),)
    found = []
    for name in _VERDICTS:
        same = tuple(variant.experiment for variant in verdict.variants if variant.verdict == name)
        if same:
            found.append((word(t, VERDICTS, name), TONES[name], same))
    return tuple(found)


def warnings(view: View, verdict: ComparisonVerdict) -> tuple[str, ...]:
    """Return what weakens the verdicts of a comparison: blind controls, what was declared, what is missing."""
    t = view.t
    found = []
    if verdict.sensitive is False:
        blind = t.list([control.experiment for control in verdict.controls if control.told is False])
        found.append(
            t("Not sensitive: control {names} is not told apart, so the comparison gives no verdict.", names=blind)
        )
    if verdict.exploratory:
        found.append(t("Exploratory: found by looking, not decided before the runs."))
    for variant in verdict.variants:
        found += [
            caveat(view, verdict, variant.experiment, path) for path in _declared(view, verdict, variant.experiment)
        ]
    return tuple(found)


def _declared(view: View, verdict: ComparisonVerdict, variant: str) -> list[str]:
    """Return the declared differences outside the factor that this variant really has, as `analysis.caveats` does."""
    from ablab.study.differences import covers, differences

    study = view.study
    comparison = next(item for item in study.comparisons if item.name == verdict.comparison)
    found = differences(study.experiments[comparison.baseline], study.experiments[variant])
    return [
        path for path in found if covers(study, comparison.also, path) and not covers(study, comparison.factor, path)
    ]


def caveat(view: View, verdict: ComparisonVerdict, variant: str, path: str) -> str:
    """Return a declared difference as a sentence."""
    from ablab.report.settings import short
    from ablab.study.differences import differences

    experiments = view.study.experiments
    ours, theirs = differences(experiments[verdict.baseline], experiments[variant])[path]
    return view.t(
        "Caveat: {variant} also differs from {baseline} in {path}, {theirs} against {ours}.",
        variant=variant,
        baseline=verdict.baseline,
        path=path,
        theirs=short(theirs),
        ours=short(ours),
    )

"""Verdicts in sentences of the report's language, made from their codes and numbers, never from English sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ablab.report.document import ARROWS, Answer, Tone
from ablab.report.words import TONES, VERDICTS, word

if TYPE_CHECKING:
    from ablab.analysis.judgement import ComparisonVerdict, ConditionVerdict, ControlVerdict, VariantVerdict
    from ablab.report.language import Translator
    from ablab.report.view import View
    from ablab.study.schema import Study

_OPERATORS = {"<=": "≤", "<": "<", ">=": "≥", ">": ">"}


def metric_name(metric: str) -> tuple[str, bool]:
    """Split `val/perplexity@best` into its name and whether the best value counts."""
    name, _, which = metric.rpartition("@")
    return (name, which == "best") if name and which in ("last", "best") else (metric, False)


def labelled(study: Study, metric: str) -> str:
    """Return a metric with its unit and the direction in which it is better."""
    found = study.task.metric(metric_name(metric)[0])
    unit = f" [{found.unit}]" if found.unit else ""
    return f"{metric}{unit} {ARROWS[found.direction]}"


def condition_words(t: Translator, condition: ConditionVerdict, baseline: str) -> str:
    """Return a condition as an inequality between what is measured: `val/perplexity ≤ 1.05 × GPT-01`."""
    operator = _OPERATORS.get(condition.operator, condition.operator)
    number = t.figure(abs(condition.number))
    if condition.quantity == "ratio":
        return f"{condition.metric} {operator} {t.figure(condition.number)} × {baseline}"
    if condition.quantity == "difference":
        sign = "−" if condition.number < 0 else "+"
        right = f"{baseline} {sign} {number}" if condition.number else baseline
        return f"{condition.metric} {operator} {right}"
    return f"{condition.metric} {operator} {t.figure(condition.number)}"


def asked(t: Translator, verdict: ComparisonVerdict) -> str:
    """Return the criterion of a comparison in words; what is shown where there is none."""
    conditions = next((v.conditions for v in _all(verdict) if v.conditions), ())
    if not verdict.criterion or not conditions:
        return t(
            "{metric} against {baseline}, shown without a criterion", metric=verdict.metric, baseline=verdict.baseline
        )
    joined = t(" and ").join(condition_words(t, condition, verdict.baseline) for condition in conditions)
    checkpoint = t("at the best checkpoint") if conditions[0].at == "best" else t("at the last checkpoint")
    return f"{joined}, {checkpoint}"


def effect_words(t: Translator, study: Study, condition: ConditionVerdict, baseline: str) -> str:
    """Return estimate, interval and seeds of one condition; empty where there is no estimate."""
    if condition.point is None:
        return ""
    interval = ""
    if condition.low is not None and condition.high is not None and condition.level is not None:
        interval = t(
            "{level} interval {low} to {high}",
            level=t.percent(condition.level, digits=0 if condition.level == 0.95 else 1),
            low=amount(t, condition, condition.low),
            high=amount(t, condition, condition.high),
        )
    seeds = t.n("{n} seed", "{n} seeds", condition.n) if condition.n else ""
    evidence = ", ".join(part for part in (interval, seeds) if part)
    return (
        f"{_estimate(t, study, condition, baseline)} ({evidence})"
        if evidence
        else _estimate(t, study, condition, baseline)
    )


def amount(t: Translator, condition: ConditionVerdict, value: float) -> str:
    """Return a number of a condition as a reader takes it in: a ratio as change in percent."""
    if condition.quantity == "ratio":
        return f"{t.signed(100 * (value - 1))} %"
    return t.signed(value, digits=4) if condition.quantity == "difference" else t.figure(value)


def _estimate(t: Translator, study: Study, condition: ConditionVerdict, baseline: str) -> str:
    point = condition.point or 0.0
    if condition.quantity == "value":
        return t("{metric} is {value}", metric=condition.metric, value=t.figure(point))
    neutral = 1.0 if condition.quantity == "ratio" else 0.0
    if point == neutral:
        return t("{metric} is the same as that of {baseline}", metric=condition.metric, baseline=baseline)
    size = amount(t, condition, point).lstrip("+−")
    names = {"metric": condition.metric, "amount": size, "baseline": baseline}
    worse = (point > neutral) == (study.task.metric(condition.metric).direction == "lower")
    if point > neutral:
        return (
            t("{metric} is {amount} higher than that of {baseline}, worse", **names)
            if worse
            else t("{metric} is {amount} higher than that of {baseline}, better", **names)
        )
    return (
        t("{metric} is {amount} lower than that of {baseline}, worse", **names)
        if worse
        else t("{metric} is {amount} lower than that of {baseline}, better", **names)
    )


def reason(t: Translator, verdict: VariantVerdict, comparison: ComparisonVerdict) -> str:
    """Return why a verdict is what it is, beyond its estimate; empty where the interval says it all."""
    code = verdict.code
    simple = {
        "constant": t("nothing in it depends on the seed"),
        "on-margin": t("the estimate is the margin itself, which no number of seeds decides"),
        "one-seed": t("one seed has no interval; three or more are needed"),
        "holm-stopped": t("an earlier arm of the comparison is undecided, and Holm's procedure stops there"),
        "planned": t("planned, not run"),
        "not-positive": t("a value is not positive, so its ratio has no meaning"),
        "not-finite": t("a value is not a finite number"),
        "diverged": t("seeds ended in a loss that is not finite; leaving them out would favour the arm"),
        "exploratory": t("shown without a criterion"),
    }
    if code in simple:
        return simple[code]
    if code == "includes-margin":
        needed = verdict.seeds_needed
        if needed is None:
            return t("the interval includes the margin; more seeds than are practical would be needed")
        return t.n(
            "the interval includes the margin; about {n} seed would decide",
            "the interval includes the margin; about {n} seeds would decide",
            needed,
        )
    if code == "no-values":
        return t("no seed has complete values of both arms yet")
    if code in ("not-sensitive", "control-pending"):
        telling = False if code == "not-sensitive" else None
        names = t.list([control.experiment for control in comparison.controls if control.told is telling])
        if code == "not-sensitive":
            return t("control {names} is not told apart, so a failure could not have been seen", names=names)
        return t("waits for its control {names}", names=names)
    return ""


def answer(view: View, verdict: VariantVerdict, comparison: ComparisonVerdict) -> Answer:
    """Return what a comparison says of one of its variants."""
    t = view.t
    held = verdict.code == "not-sensitive"
    said = t("not sensitive") if held else word(t, VERDICTS, verdict.verdict)
    if verdict.code == "exploratory":
        said = t("no criterion")
    tone: Tone = "blind" if held else "plain" if verdict.code == "exploratory" else TONES[verdict.verdict]
    return _answer(view, verdict, comparison, said=said, tone=tone, role="")


def control_answer(view: View, control: ControlVerdict, comparison: ComparisonVerdict) -> Answer:
    """Return whether a control did what it must."""
    t = view.t
    role = t("control, must fail") if control.expected == "fail" else t("control, must pass")
    said, tone = t("unknown yet"), TONES["undecided"]
    if control.told:
        said, tone = (t("fails, as it must") if control.expected == "fail" else t("passes, as it must")), "good"
    elif control.told is False:
        said, tone = t("not told apart"), "blind"
    return _answer(view, control.verdict, comparison, said=said, tone=tone, role=role)


def _answer(
    view: View, verdict: VariantVerdict, comparison: ComparisonVerdict, *, said: str, tone: Tone, role: str
) -> Answer:
    t = view.t
    shown = [condition for condition in verdict.conditions if condition.point is not None]
    effects = [effect_words(t, view.study, condition, comparison.baseline) for condition in shown]
    parts = [*effects, reason(t, verdict, comparison)]
    if verdict.provisional and shown:
        parts.append(t("provisional: no value yet from {missing}", missing=missing_words(t, verdict.missing)))
    first = shown[0] if shown else None
    return Answer(
        arm=verdict.experiment,
        word=said,
        tone=tone,
        sentence="; ".join(part for part in parts if part),
        short="" if first is None or first.point is None else amount(t, first, first.point),
        values=() if first is None else tuple(p.effect for p in first.pairs if p.effect is not None),
        low=None if first is None else first.low,
        point=None if first is None else first.point,
        high=None if first is None else first.high,
        role=role,
        link=view.anchor(verdict.experiment),
    )


def missing_words(t: Translator, missing: Mapping[str, tuple[int, ...]]) -> str:
    """Return which seeds of which arms are missing."""
    return "; ".join(
        t.n("{arm} at seed {seeds}", "{arm} at seeds {seeds}", len(seeds), arm=arm, seeds=", ".join(map(str, seeds)))
        for arm, seeds in missing.items()
    )


def _all(verdict: ComparisonVerdict) -> tuple[VariantVerdict, ...]:
    return (*verdict.variants, *(control.verdict for control in verdict.controls))

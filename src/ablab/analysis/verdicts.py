"""Judge the comparisons of a study: met, not met, or undecided; and whether controls show that it could have seen it.

met = the whole interval satisfies the criterion, not met = none of it does, undecided otherwise, with the seeds that
would decide. Holm's procedure runs across the variants of a comparison. Within a criterion joined by `and`, met needs
every condition met and not met needs one condition not met. A comparison whose controls are not told apart is not
sensitive and gives no verdict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from ablab.analysis.caveats import caveats
from ablab.analysis.effects import Effect, effect, metric_and_checkpoint
from ablab.analysis.holm import Step, holm
from ablab.analysis.intervals import same, seeds_to_decide
from ablab.analysis.judgement import (
    Code,
    ComparisonVerdict,
    ConditionVerdict,
    ControlVerdict,
    VariantVerdict,
    Verdict,
)
from ablab.analysis.results import Results
from ablab.analysis.wording import condition_text, interval_text, missing_text, names, number, seeds_text
from ablab.study.schema import Comparison, Condition, Criterion, Study


def judge(study: Study, results: Results) -> list[ComparisonVerdict]:
    """Return the verdict of every comparison of the study, in its order."""
    return [judge_comparison(study, comparison, results) for comparison in study.comparisons]


def judge_comparison(study: Study, comparison: Comparison, results: Results) -> ComparisonVerdict:
    """Return the verdict of one comparison."""
    alpha = 1 - comparison.confidence
    evidence = {name: _effects(results, comparison, name) for name in comparison.variants}
    tested = [name for name in comparison.variants if not study.experiments[name].planned]
    steps = dict(zip(tested, holm([_rank_p(evidence[name]) for name in tested], alpha), strict=True))
    stopped = next((name for name in sorted(tested, key=lambda n: steps[n].rank) if not steps[name].decided), None)
    variants = [
        _variant(
            name, evidence[name], steps.get(name), comparison, stopped=stopped, notes=caveats(study, comparison, name)
        )
        for name in comparison.variants
    ]
    controls = [
        *(_control(study, results, comparison, name, "fail") for name in comparison.fail_controls),
        *(_control(study, results, comparison, name, "pass") for name in comparison.pass_controls),
    ]
    if not comparison.criterion.conditions:
        controls = []
    sensitive = _sensitive(controls)
    held = tuple(_held_back(variant, controls, sensitive) for variant in variants)
    verdict = ComparisonVerdict(
        comparison=comparison.name,
        baseline=comparison.baseline,
        metric=comparison.metric,
        criterion=comparison.criterion.text,
        at=comparison.at,
        confidence=comparison.confidence,
        variants=held,
        controls=tuple(controls),
        sensitive=sensitive,
        exploratory=comparison.exploratory,
        caveats=tuple(dict.fromkeys(text for variant in held for text in variant.caveats)),
    )
    return replace(verdict, text=_comparison_text(verdict))


def _effects(results: Results, comparison: Comparison, name: str) -> list[Effect]:
    conditions = comparison.criterion.conditions or (_shown_only(results, comparison),)
    return [effect(results, comparison, name, condition) for condition in conditions]


def _shown_only(results: Results, comparison: Comparison) -> Condition:
    """Return what an exploratory comparison without a criterion shows: the ratio where it has a meaning."""
    metric, at = metric_and_checkpoint(comparison.metric, comparison.at)
    numbers = [value for name in comparison.arms for value in results.values(name, metric, at).values()]
    if numbers and min(numbers) > 0:
        return Condition(metric=comparison.metric, quantity="ratio", operator="<=", number=1.0)
    return Condition(metric=comparison.metric, quantity="difference", operator="<=", number=0.0)


def _rank_p(effects: Iterable[Effect]) -> float:
    """Return the smaller one-sided p of a variant: all conditions satisfied, or any one of them not satisfied."""
    pairs = [found.p_values() for found in effects]
    return min(max(met for met, _ in pairs), min(not_met for _, not_met in pairs))


def _variant(
    name: str,
    effects: list[Effect],
    step: Step | None,
    comparison: Comparison,
    *,
    stopped: str | None,
    notes: tuple[str, ...],
) -> VariantVerdict:
    """Judge one variant at its Holm step (None: a planned arm, which is not tested)."""
    level = comparison.confidence if step is None else step.level
    conditions = tuple(_condition(found, level) for found in effects)
    verdict, code, reason = _joined(conditions)
    if step is None:
        verdict, code, reason = "undecided", "planned", f"{name} is planned and not run"
    elif not step.reached and verdict != "undecided":
        reason = f"Holm's procedure stopped at {stopped}, which is undecided; alone, the criterion would be {verdict}"
        verdict, code = "undecided", "holm-stopped"
    if not comparison.criterion.conditions:
        conditions = tuple(_without_verdict(condition) for condition in conditions)
        verdict, code, reason = "undecided", "exploratory", f"shown without a verdict: {conditions[0].reason}"
    missing = {arm: seeds for found in effects for arm, seeds in found.missing.items()}
    return VariantVerdict(
        experiment=name,
        verdict=verdict,
        code=code,
        reason=reason,
        conditions=conditions,
        p=_rank_p(effects),
        rank=None if step is None else step.rank,
        level=level,
        seeds=tuple(dict.fromkeys(p.seed for found in effects for p in found.pairs if p.seed is not None)),
        missing=missing,
        seeds_needed=_seeds_needed(conditions) if code == "includes-margin" else None,
        caveats=notes,
        keys=tuple(dict.fromkeys(key for found in effects for key in found.keys)),
    )


def _without_verdict(condition: ConditionVerdict) -> ConditionVerdict:
    """Keep estimate and interval of a condition that no criterion stands behind."""
    if condition.point is None or condition.low is None or condition.high is None or condition.level is None:
        reason = condition.reason
    else:
        drawn = interval_text(condition.low, condition.high, condition.level)
        reason = f"{condition.quantity} {number(condition.point)}, {drawn}, n = {condition.n}"
    text = f"{condition.metric} {condition.quantity}"
    return replace(
        condition, verdict="undecided", code="exploratory", reason=reason, text=text, p=None, seeds_needed=None
    )


def _condition(found: Effect, level: float) -> ConditionVerdict:
    """Judge one condition at a confidence level."""
    met, not_met = found.p_values()
    sample, condition = found.sample, found.condition
    interval = None if sample is None else sample.interval(level)
    verdict: Verdict = "undecided"
    if 2 * min(met, not_met) < 1 - level:
        verdict = "met" if met < not_met else "not met"
    code, reason = _why(found, verdict, level)
    needed = None
    if code == "includes-margin" and sample is not None and sample.sd is not None and found.margin is not None:
        needed = seeds_to_decide(sample.sd, abs(sample.mean - found.margin), level)
        reason = f"{reason}; {seeds_text(needed)}"
    return ConditionVerdict(
        metric=found.metric,
        at=found.at,
        text=condition_text(condition),
        quantity=condition.quantity,
        operator=condition.operator,
        number=condition.number,
        verdict=verdict,
        code=code,
        reason=reason,
        point=None if sample is None else found.shown(sample.mean),
        low=None if interval is None else found.shown(interval[0]),
        high=None if interval is None else found.shown(interval[1]),
        level=level if interval is not None else None,
        n=0 if sample is None else sample.n,
        sd=None if sample is None else sample.sd,
        pairs=found.pairs,
        p=None if sample is None or sample.sd is None else min(met, not_met),
        p_met=met,
        p_not_met=not_met,
        seeds_needed=needed,
    )


def _why(found: Effect, verdict: Verdict, level: float) -> tuple[Code, str]:
    """Return code and sentence of one condition's verdict."""
    sample, condition = found.sample, found.condition
    if sample is None or found.margin is None:
        absent = missing_text(found.missing)
        return found.code, f"{found.problem}{f' ({absent})' if absent else ''}"
    interval = sample.interval(level)
    estimate = f"{condition.quantity} {number(found.shown(sample.mean))}"
    if interval is None:
        return "one-seed", f"{estimate} from one seed: one random value has no interval; three seeds or more are needed"
    if verdict == "undecided" and found.diverged:
        lost = "; ".join(f"{arm} at {names(seeds)}" for arm, seeds in found.diverged.items())
        return "diverged", f"seeds ended in a loss that is not finite ({lost}): leaving them out would favour the arm"
    if sample.sd == 0:
        word = "does not depend on the seed" if sample.constant else "is the same at every seed"
        return "constant", f"{estimate} {word}"
    drawn = interval_text(found.shown(interval[0]), found.shown(interval[1]), level)
    where = f"{estimate}, {drawn}, n = {sample.n}"
    if verdict != "undecided":
        return "interval", where
    if same(sample.mean, found.margin):
        return (
            "on-margin",
            f"{where}: the estimate is the margin itself, and no number of seeds decides it as it stands",
        )
    return "includes-margin", f"{where}, includes {number(condition.number)}"


def _joined(conditions: tuple[ConditionVerdict, ...]) -> tuple[Verdict, Code, str]:
    """Join conditions by `and`: not met if any is not met, met if all are, else undecided."""
    against = [c for c in conditions if c.verdict == "not met"]
    open_ = [c for c in conditions if c.verdict == "undecided"]
    verdict: Verdict = "not met" if against else "undecided" if open_ else "met"
    telling = against or open_ or list(conditions)
    prefix = len(conditions) > 1
    reason = "; ".join(f"{c.metric}: {c.reason}" if prefix else c.reason for c in telling)
    return verdict, telling[0].code, reason


def _seeds_needed(conditions: tuple[ConditionVerdict, ...]) -> int | None:
    """Return the seeds that would decide a variant: any failing condition decides, else all must be shown."""
    open_ = [c for c in conditions if c.verdict == "undecided"]
    failing = [c.seeds_needed for c in open_ if c.p_not_met < c.p_met and c.seeds_needed is not None]
    if any(c.p_not_met < c.p_met for c in open_):
        return min(failing, default=None)
    needed = [c.seeds_needed for c in open_]
    return None if None in needed else max((n for n in needed if n is not None), default=None)


def _control(
    study: Study, results: Results, comparison: Comparison, name: str, expected: Literal["fail", "pass"]
) -> ControlVerdict:
    """Judge a control by the rules of a variant, at the comparison's own confidence."""
    effects = _effects(results, comparison, name)
    alone = Step(index=0, rank=1, alpha=1 - comparison.confidence, decided=True, reached=True)
    step = None if study.experiments[name].planned else alone
    verdict = _variant(name, effects, step, comparison, stopped=None, notes=())
    if expected == "pass":
        told = verdict.verdict == "met"
        wanted = "must meet the criterion"
    else:
        told = verdict.verdict == "not met" and (
            _baseline_satisfies(comparison.criterion) or _differs_from_baseline(effects, comparison.confidence)
        )
        wanted = "must not meet the criterion"
    lonely = verdict.code == "one-seed"
    lacking = verdict.provisional or verdict.code in ("no-values", "planned")
    pending = verdict.verdict == "undecided" and (lonely or lacking)
    waiting = "cannot be told apart by one seed" if lonely and not lacking else "has no complete values yet"
    state = "did as it must" if told else waiting if pending else "was not told apart"
    text = f"{name} {wanted} and {state}: {verdict.reason}"
    return ControlVerdict(
        experiment=name, expected=expected, told=None if pending else told, verdict=verdict, text=text
    )


def _baseline_satisfies(criterion: Criterion) -> bool:
    """Whether the baseline compared with itself would satisfy the criterion (a plain value cannot be told)."""
    itself = {"ratio": 1.0, "difference": 0.0}
    return all(_holds(itself[c.quantity], c.operator, c.number) for c in criterion.conditions if c.quantity in itself)


def _holds(left: float, operator: str, right: float) -> bool:
    return {"<=": left <= right, "<": left < right, ">=": left >= right, ">": left > right}[operator]


def _differs_from_baseline(effects: list[Effect], level: float) -> bool:
    """Whether any interval leaves "equal to the baseline" out.

    Where the criterion asks for an improvement, the baseline itself does not meet it, so a control that does not
    meet it either has shown nothing yet.
    """
    for found in effects:
        interval = None if found.sample is None else found.sample.interval(level)
        if interval is not None and found.condition.quantity != "value" and not interval[0] <= 0 <= interval[1]:
            return True
    return False


def _sensitive(controls: list[ControlVerdict]) -> bool | None:
    """Return whether the comparison showed that it can see a failure; None without controls or while one is open."""
    told = [control.told for control in controls]
    if False in told:
        return False
    return None if not told or None in told else True


def _held_back(variant: VariantVerdict, controls: list[ControlVerdict], sensitive: bool | None) -> VariantVerdict:
    """Take a verdict back that the controls do not support."""
    if sensitive is True or not controls or variant.verdict == "undecided":
        return variant
    blind = sensitive is False
    which = names(control.experiment for control in controls if control.told is (False if blind else None))
    code: Code = "not-sensitive" if blind else "control-pending"
    reason = (
        f"not sensitive: the comparison does not tell {which} apart, so it could not have seen a failure"
        if blind
        else f"waits for its control {which}"
    )
    return replace(variant, verdict="undecided", code=code, reason=f"{reason} ({variant.reason})")


def _comparison_text(verdict: ComparisonVerdict) -> str:
    """Return the comparison's verdict in sentences, each variant one."""
    parts = []
    if verdict.sensitive is False:
        blind = names(control.experiment for control in verdict.controls if control.told is False)
        parts.append(f"Not sensitive, no verdict: {blind} was not told apart.")
    if verdict.exploratory:
        parts.append("Exploratory: found by looking, not decided beforehand.")
    for variant in verdict.variants:
        absent = missing_text(variant.missing)
        provisional = f" Provisional: {absent}." if absent and variant.verdict != "undecided" else ""
        said = f"{verdict.criterion} {variant.verdict}. " if verdict.criterion else ""
        parts.append(f"{variant.experiment}: {said}{_sentence(variant.reason)}{provisional}")
    return " ".join(parts)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""

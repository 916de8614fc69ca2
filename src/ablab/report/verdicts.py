"""Verdicts as lines for a terminal: what a stranger should understand in ten seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ablab.contract.units import figure

if TYPE_CHECKING:
    from ablab.analysis.judgement import ComparisonVerdict, ConditionVerdict, VariantVerdict
    from ablab.study.schema import Study


def verdict_lines(study: Study, verdicts: Sequence[ComparisonVerdict]) -> Iterator[str]:
    """Yield the verdict of every comparison: criterion, arms, estimate and interval."""
    if study.question:
        yield study.question
    for verdict in verdicts:
        yield ""
        yield (
            f"{verdict.comparison}: {verdict.criterion} of {verdict.metric} ({verdict.at}) against {verdict.baseline}"
        )
        for control in verdict.controls:
            state = "seen to" if control.told else "not yet known to" if control.told is None else "NOT seen to"
            yield f"  control {control.experiment} must {control.expected}: {state} {control.expected}"
        if verdict.sensitive is False:
            yield "  NOT SENSITIVE: the comparison cannot tell its controls, so it gives no verdict"
        width = max((len(variant.experiment) for variant in verdict.variants), default=0)
        for variant in verdict.variants:
            yield f"  {variant.experiment:<{width}}  {variant.verdict.upper():<9}  {evidence(variant)}"


def evidence(variant: VariantVerdict) -> str:
    """Return what a variant's verdict rests on, or why there is none."""
    shown = [condition_text(condition) for condition in variant.conditions if condition.point is not None]
    if not shown or variant.code in {"one-seed", "holm-stopped", "planned", "not-sensitive"}:
        shown.append(variant.reason)
    if variant.seeds_needed:
        shown.append(f"about {variant.seeds_needed} seeds would decide")
    return "; ".join(shown)


def condition_text(condition: ConditionVerdict) -> str:
    """Return estimate, interval and n of one condition."""
    text = f"{condition.quantity} {figure(condition.point)}"
    if condition.low is not None and condition.high is not None and condition.level is not None:
        text += f" [{figure(condition.low)}, {figure(condition.high)}] at {100 * condition.level:.3g} %"
    return f"{text}, n = {condition.n}"

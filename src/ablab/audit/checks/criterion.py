"""Criteria: do they point the way their metric does, and does anything yield the metric."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from ablab.audit.findings import finding, place
from ablab.audit.training import lineage
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding
from ablab.study.schema import Comparison, Condition


def direction(view: AuditView) -> Iterable[Finding]:
    """Warnings: a criterion that is met by getting worse; notes: ratios of a logarithm."""
    for index, comparison in view.comparisons():
        for condition in comparison.criterion.conditions:
            metric = view.study.task.metric(condition.metric.partition("@")[0])
            wanted = "<" if metric.direction == "lower" else ">"
            if metric.description and not condition.operator.startswith(wanted):
                yield finding(
                    view,
                    "criterion-against-metric",
                    "warning",
                    place(index, comparison),
                    f"{condition.metric} is better when {metric.direction}, and the criterion `{_text(condition)}` is "
                    "met by getting worse",
                    remedy=f"turn the operator round ({wanted}=), or say in `accept:` why worse is wanted",
                    evidence={"metric": condition.metric, "direction": metric.direction},
                    comparison=comparison,
                )
            if condition.quantity == "ratio" and metric.unit in ("nats", "bits"):
                yield finding(
                    view,
                    "ratio-of-a-logarithm",
                    "note",
                    place(index, comparison),
                    f"{condition.metric} is measured in {metric.unit}, a logarithm: its ratio says little, a "
                    "difference is what a ratio of the perplexities would be",
                    remedy="use difference, or the ratio of a perplexity",
                    comparison=comparison,
                )


def metric_is_yielded(view: AuditView) -> Iterable[Finding]:
    """Errors: an arm whose pipeline yields no metric that its comparison asks for."""
    for index, comparison in view.comparisons():
        for name in _asked(comparison):
            without = []
            for arm in view.arms(comparison, controls=True):
                patterns = [p for _, stage in lineage(view.study, arm) for p in stage.spec.metrics]
                open_ended = any(not stage.spec.metrics and stage.kind == "command" for stage in arm.stages)
                if patterns and not open_ended and not any(fnmatchcase(name, pattern) for pattern in patterns):
                    without.append(arm.name)
            if without:
                yield finding(
                    view,
                    "metric-not-yielded",
                    "error",
                    place(index, comparison),
                    f"no stage of {', '.join(without)} yields {name}",
                    remedy="add the stage that measures it to every arm",
                    subjects=tuple(without),
                    comparison=comparison,
                )


def validation_missing(view: AuditView) -> Iterable[Finding]:
    """Warnings: a value `at: best` of a stage that is validated once."""

    for index, comparison in view.comparisons():
        if comparison.at != "best":
            continue
        once = [
            arm.name
            for arm in view.arms(comparison)
            if any(stage.validations == 1 for stage in view.training(arm)[-1:])
        ]
        if once:
            yield finding(
                view,
                "best-of-one-look",
                "note",
                place(index, comparison),
                f"`at: best` of {', '.join(once)} is its last value: it is validated at the end only",
                remedy="set validation.every, or compare the last value",
                subjects=tuple(once),
                comparison=comparison,
            )


def _asked(comparison: Comparison) -> list[str]:
    names = [comparison.metric, *(condition.metric for condition in comparison.criterion.conditions)]
    return list(dict.fromkeys(name.partition("@")[0] for name in names))


def _text(condition: Condition) -> str:
    return f"{condition.quantity} {condition.operator} {condition.number:g}"


CHECKS = (direction, metric_is_yielded, validation_missing)

"""Initial scale of logits: arms that start at another softmax temperature measure temperature.

The log's random arm began with logits of standard deviation 0.21 against 0.99 of its orthogonal arm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ablab.audit.findings import finding, not_checked, place
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding

#: Ratio of the largest to the smallest scale that counts as the same.
SAME_SCALE = 1.5
FACT = "logits.scale"


def logit_scale(view: AuditView) -> Iterable[Finding]:
    """Warnings: arms of a comparison whose logits differ in initial scale by more than `SAME_SCALE`."""
    if not _reported(view):
        return
    for index, comparison in view.comparisons():
        scales, sources, lacking = {}, {}, []
        for arm in view.arms(comparison):
            if not view.training(arm):
                # A baseline that learns nothing has no logits.
                continue
            fact = view.fact(arm.name, FACT)
            value = None if fact is None else as_number(fact.value)
            if fact is None or value is None:
                lacking.append(arm.name)
            else:
                scales[arm.name], sources[arm.name] = value, fact.source
        if len(scales) > 1 and max(scales.values()) > SAME_SCALE * min(scales.values()):
            low, high = min(scales, key=scales.__getitem__), max(scales, key=scales.__getitem__)
            ratio = scales[high] / scales[low] if scales[low] else float("inf")
            told = ", ".join(f"{name} {scale:.2g}" for name, scale in scales.items())
            yield finding(
                view,
                "initial-logit-scale-differs",
                "warning",
                place(index, comparison),
                f"initial logits differ in scale (standard deviation {told}): between {high} and {low} the "
                f"comparison also measures softmax temperature, x{ratio:.1f}",
                remedy=f"read only arms of one scale against each other ({_groups(scales)}), or add a matched one",
                evidence={"scales": scales, "sources": sources, "ratio": ratio},
                subjects=tuple(scales),
                comparison=comparison,
            )
        if lacking:
            yield not_checked(
                view,
                "initial-logit-scale-differs",
                place(index, comparison),
                f"the initial logit scale of {', '.join(lacking)} is not known",
                subjects=tuple(lacking),
                comparison=comparison,
            )


def _groups(scales: Mapping[str, float]) -> str:
    """Return the arms that share a scale, for a sentence."""
    groups: list[list[str]] = []
    for name in sorted(scales, key=scales.__getitem__):
        if groups and scales[name] <= SAME_SCALE * scales[groups[-1][0]]:
            groups[-1].append(name)
        else:
            groups.append([name])
    return "; ".join(", ".join(names) for names in groups)


def as_number(value: Any) -> float | None:
    """Return a scale as one number: itself, or the mean over layers."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    parts = (
        list(value.values()) if isinstance(value, Mapping) else list(value) if isinstance(value, list | tuple) else []
    )
    numbers = [number for number in map(as_number, parts) if number is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _reported(view: AuditView) -> bool:
    """Whether the task knows logit scales at all: it derives them, or some run measured one."""
    if FACT in view.derivations:
        return True
    return any(FACT in (view.facts(name) or {}) for name in view.study.experiments)


CHECKS = (logit_scale,)

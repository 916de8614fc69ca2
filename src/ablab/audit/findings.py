"""Making findings: one sentence, the values behind it, what to do, and where in the study file it belongs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ablab.audit.view import AuditView
from ablab.contract.finding import Finding, Severity
from ablab.study.schema import Comparison

NOT_CHECKED = "not checked; run check --probe"


def place(index: int, comparison: Comparison, experiment: str | None = None) -> str:
    """Return the study path of a comparison, or of one of its variants or controls."""
    base = f"comparisons[{index}]"
    if experiment is None or experiment == comparison.baseline:
        return base
    for key, names in (
        ("variants", comparison.variants),
        ("controls.fail", comparison.fail_controls),
        ("controls.pass", comparison.pass_controls),
    ):
        if experiment in names:
            return f"{base}.{key}[{names.index(experiment)}]"
    return base


def finding(
    view: AuditView,
    id: str,
    severity: Severity,
    where: str,
    message: str,
    *,
    remedy: str = "",
    evidence: Mapping[str, Any] | None = None,
    subjects: tuple[str, ...] = (),
    comparison: Comparison | None = None,
) -> Finding:
    """Return a finding with the line of its place filled in."""
    return Finding(
        id=id,
        severity=severity,
        where=where,
        message=message,
        evidence=dict(evidence or {}),
        remedy=remedy,
        subjects=subjects,
        line=view.line(where, comparison),
    )


def not_checked(
    view: AuditView,
    id: str,
    where: str,
    lacking: str,
    *,
    subjects: tuple[str, ...] = (),
    comparison: Comparison | None = None,
    remedy: str = "run check --probe",
) -> Finding:
    """Return a finding that says which fact a check lacks: silence would mean soundness."""
    return Finding(
        id=id,
        severity="note",
        where=where,
        message=lacking,
        remedy=remedy,
        subjects=subjects,
        line=view.line(where, comparison),
        checked=False,
    )


def shown(value: object) -> str:
    """Return a value for a sentence: numbers short, text as it is."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:,}"
    return str(value)


def listed(names: Sequence[str], most: int = 6) -> str:
    """Join names, each once, the first few of many."""
    names = list(dict.fromkeys(names))
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"

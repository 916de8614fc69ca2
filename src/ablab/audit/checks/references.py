"""References: numbers from elsewhere that stand beside ours."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

from ablab.audit.findings import finding, listed, shown
from ablab.audit.view import AuditView
from ablab.contract.finding import Finding

#: Significant digits that two values must share, over all metrics they share, to look copied.
TELLING_DIGITS = 4
#: Relative difference from a reference, or from the nearer end of a band, beyond which a full run did not reproduce it.
REPRODUCED = 0.05


def digits(value: float) -> int:
    """Return the significant digits a value was written with: 59.43 has four, 0.847 three, 100 one."""
    text = f"{abs(value):.12g}".partition("e")[0]
    if "." not in text:
        text = text.rstrip("0")
    return len(text.replace(".", "").lstrip("0"))


def copied(view: AuditView) -> Iterable[Finding]:
    """Warnings: references of different experiments that are equal to the last digit."""
    study = view.study
    for first, second in combinations(study.references, 2):
        ours, theirs = study.references[first].values, study.references[second].values
        equal = [name for name in ours if name in theirs and ours[name] == theirs[name]]
        told = sum(digits(ours[name]) for name in equal)
        if told < TELLING_DIGITS:
            continue
        several = len(equal) > 1
        yield finding(
            view,
            "identical-references",
            "warning" if several else "note",
            f"references.{second}",
            f"references of {first} and {second} are identical to the last digit in "
            f"{listed([f'{name} {ours[name]:g}' for name in equal])}",
            remedy="check whether one was copied from the other",
            evidence={name: ours[name] for name in equal},
            subjects=(first, second),
        )


def not_reproduced(view: AuditView) -> Iterable[Finding]:
    """Notes: full runs whose values are far from their references."""
    if view.study.profile != "full":
        return
    for name, reference in view.study.references.items():
        for metric, expected in reference.values.items():
            values = view.values(view.study.experiments[name], metric)
            if not values or not expected:
                continue
            mean = sum(values.values()) / len(values)
            low, high = reference.bands.get(metric, (expected, expected))
            if mean < low - REPRODUCED * abs(low) or mean > high + REPRODUCED * abs(high):
                yield finding(
                    view,
                    "reference-not-reproduced",
                    "note",
                    f"references.{name}.{metric}",
                    f"{name} reaches {metric} {shown(mean)} where the reference says "
                    + (shown(expected) if low == high else f"{shown(low)} to {shown(high)}"),
                    remedy="compare definitions (split, window, tokenizer) and settings before comparing numbers",
                    evidence={"reference": expected, "ours": values},
                    subjects=(name,),
                )


CHECKS = (copied, not_reproduced)

"""Relaxed accuracy (Masry et al. 2022, after Methani et al. 2020): ChartQA's measure.

A number is right within 5 % of the target; anything else must be equal but for case. "12%" is .12, on both sides, so
"12" is no answer to "12%"; a number with thousands commas is text; a target of 0 must be met as text. These are the
rules as published, kept so that numbers compare.
"""

from __future__ import annotations

TOLERANCE = 0.05


def relaxed(prediction: str, target: str, *, tolerance: float = TOLERANCE) -> bool:
    """Tell whether an answer is right: relative error up to `tolerance` for numbers, else equality but for case."""
    prediction, target = prediction.strip(), target.strip()
    found, wanted = number(prediction), number(target)
    if found is not None and wanted:
        return abs(found - wanted) / abs(wanted) <= tolerance
    return prediction.lower() == target.lower()


def number(text: str) -> float | None:
    """Return the number a text is, a percentage as its hundredth; None where it is none, or not finite."""
    share = text.endswith("%")
    try:
        value = float(text.rstrip("%")) / (100.0 if share else 1.0)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None

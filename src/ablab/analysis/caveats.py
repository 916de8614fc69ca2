"""Caveats of a verdict: differences between a variant and its baseline that the study declares under `also`."""

from __future__ import annotations

from ablab.study.schema import Comparison, Study


def caveats(study: Study, comparison: Comparison, variant: str) -> tuple[str, ...]:
    """Return one sentence a declared difference outside the factor that this variant really has."""
    return tuple(f"{variant} also differs from {comparison.baseline} in {path}" for path in comparison.also)

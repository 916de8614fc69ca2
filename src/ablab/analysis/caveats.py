"""Caveats of a verdict: differences between a variant and its baseline that the study declares under `also`."""

from __future__ import annotations

from ablab.study.differences import covers, differences
from ablab.study.schema import Comparison, Study


def caveats(study: Study, comparison: Comparison, variant: str) -> tuple[str, ...]:
    """Return one sentence for each declared difference outside the factor that this variant really has."""
    found = differences(study.experiments[comparison.baseline], study.experiments[variant])
    return tuple(
        f"{variant} also differs from {comparison.baseline} in {path}: {_shown(theirs)} against {_shown(ours)}"
        for path, (ours, theirs) in found.items()
        if covers(study, comparison.also, path) and not covers(study, comparison.factor, path)
    )


def _shown(value: object) -> str:
    return "nothing" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

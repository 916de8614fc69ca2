"""Means over benchmarks by language and kind. All arms must average the same benchmarks, so one missing number makes
the mean missing, and says so, rather than a mean of fewer."""

from __future__ import annotations

from collections.abc import Mapping

PARTS = ("korean", "english", "structured", "overall")


def averages(
    headlines: Mapping[str, tuple[float | None, tuple[str, ...]]],
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the means by metric name (average/korean, ...), and by part why one is missing.

    Args:
        headlines: by benchmark, its number of 100 (None where missing) and the parts it enters; all enter `overall`,
            which there is of two or more.
    """
    means: dict[str, float] = {}
    missing: dict[str, str] = {}
    for part in PARTS:
        values = {name: value for name, (value, parts) in headlines.items() if part in parts or part == "overall"}
        without = [name for name, value in values.items() if value is None]
        if without:
            missing[part] = f"no number of {', '.join(without)}"
        elif len(values) > (part == "overall"):
            known = [value for value in values.values() if value is not None]
            means[f"average/{part}"] = sum(known) / len(known)
    return means, missing

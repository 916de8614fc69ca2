"""Results as a plain sheet: one CSV row an experiment and seed, one column a metric, for statistics elsewhere.

Only complete values stand in it; a cell is empty where an arm has no number. `table_text.csv_text` tells means instead.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from fnmatch import fnmatchcase

from ablab.analysis.results import At, Results
from ablab.contract.failure import ConfigError
from ablab.report.table_text import spreadsheet_safe


def rows_csv(results: Results, *, metrics: Sequence[str] | None = None, arms: Sequence[str] | None = None) -> str:
    """Return the sheet.

    Args:
        results: of the study.
        metrics: names or patterns, with @best where the best value is wanted; None takes all, at the end of each run.
        arms: names or patterns; None takes all that have a complete number.

    Raises:
        ConfigError: an arm or a metric that the study has none of.
    """
    columns = _columns(results, metrics)
    names = _named(arms, tuple(results.study.experiments), "experiment")
    stream = io.StringIO()
    heads = ["study", "profile", "experiment", "seed", "status", *(label for label, _, _ in columns)]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(heads)
    for name in names:
        for seed in results.seeds(name):
            arm = results.arm(name, seed)
            numbers = [results.values(name, metric, at).get(seed) for _, metric, at in columns]
            if arm is None or (arms is None and all(number is None for number in numbers)):
                continue
            told = ["" if number is None else repr(number) for number in numbers]
            labels = (results.study.name, results.study.profile, name)
            writer.writerow([*map(spreadsheet_safe, labels), seed, arm.status, *told])
    return stream.getvalue()


def _columns(results: Results, metrics: Sequence[str] | None) -> list[tuple[str, str, At]]:
    """Return (column, metric, last or best)."""
    if metrics is None:
        return [(name, name, "last") for name in results.metrics()]
    found: dict[str, tuple[str, str, At]] = {}
    for given in metrics:
        pattern, _, which = given.partition("@")
        if which not in ("", "last", "best"):
            raise ConfigError(f"{given}: expected @last or @best behind a metric, found @{which}")
        for name in _named([pattern], results.metrics(), "metric"):
            label = f"{name}@best" if which == "best" else name
            found[label] = (label, name, "best" if which == "best" else "last")
    return list(found.values())


def _named(patterns: Sequence[str] | None, names: Sequence[str], what: str) -> list[str]:
    if patterns is None:
        return list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"no {what} {pattern!r}; there are: {', '.join(names) or 'none yet'}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]

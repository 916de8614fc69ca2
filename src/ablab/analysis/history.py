"""Keep every verdict with its date and seeds: `verdicts.jsonl` of the study's folder, one line a change."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablab.analysis.judgement import ComparisonVerdict, VariantVerdict
from ablab.store.files import append_line, read_lines
from ablab.store.layout import Store
from ablab.study.schema import Study


def path_of(study: Study, store: Store) -> Path:
    """Return the file the verdicts of a study and profile are kept in."""
    return store.study_folder(study.name, study.profile) / "verdicts.jsonl"


def keep_verdicts(
    store: Store, study: Study, verdicts: Iterable[ComparisonVerdict], *, now: float | None = None
) -> list[dict[str, Any]]:
    """Append the verdicts that changed since they were last kept; return the lines appended.

    A verdict changed when its words, its seeds, the runs behind it or its figures did.
    """
    path = path_of(study, store)
    latest = {str(line.get("comparison")): line for line in read_lines(path)} if path.exists() else {}
    moment = time.time() if now is None else now
    added = []
    for verdict in verdicts:
        content = {
            "comparison": verdict.comparison,
            "baseline": verdict.baseline,
            "criterion": verdict.criterion,
            "at": verdict.at,
            "confidence": verdict.confidence,
            "sensitive": verdict.sensitive,
            "variants": [_line(variant) for variant in verdict.variants],
            "controls": [
                {"experiment": control.experiment, "expected": control.expected, "told": control.told}
                for control in verdict.controls
            ],
        }
        known = {key: value for key, value in latest.get(verdict.comparison, {}).items() if key not in ("date", "time")}
        if known != content:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
            line = {**content, "date": stamp, "time": moment}
            path.parent.mkdir(parents=True, exist_ok=True)
            append_line(path, line)
            added.append(line)
    return added


def read_history(study: Study, store: Store) -> list[dict[str, Any]]:
    """Return every kept verdict, oldest first; none for a study that was never judged."""
    path = path_of(study, store)
    return read_lines(path) if path.exists() else []


def _line(variant: VariantVerdict) -> dict[str, Any]:
    return {
        "experiment": variant.experiment,
        "verdict": variant.verdict,
        "code": variant.code,
        "seeds": list(variant.seeds),
        "runs": list(variant.keys),
        "conditions": [
            {
                "text": c.text,
                "verdict": c.verdict,
                "point": c.point,
                "low": c.low,
                "high": c.high,
                "level": c.level,
                "n": c.n,
            }
            for c in variant.conditions
        ],
    }

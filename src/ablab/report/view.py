"""Everything a report is made from, gathered once: study, plan, results, verdicts, findings, launches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from ablab.analysis.judgement import ComparisonVerdict
    from ablab.analysis.results import Results, RunRecord
    from ablab.contract.finding import Finding
    from ablab.plan.graph import Plan
    from ablab.store.layout import Store
    from ablab.study.schema import Study


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One `ablab run` of the study: when, what was typed, where, on what."""

    id: str
    started: float | None
    command: str
    environment: Mapping[str, Any]
    git: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class View:
    """What the sections of a report read. `t` translates a message of the catalogue."""

    study: Study
    plan: Plan
    store: Store
    results: Results
    verdicts: list[ComparisonVerdict]
    findings: list[Finding]
    launches: list[Launch]
    written: float
    t: Callable[[str], str] = field(default=str)

    def path(self, *parts: str) -> Path:
        """Return a path inside the store."""
        return self.store.root.joinpath(*parts)

    def records(self, experiment: str) -> list[RunRecord]:
        """Return the runs of an arm, over all its seeds, each once."""
        keys = dict.fromkeys(
            key for arm in self.results.arms if arm.experiment == experiment for key in arm.runs.values()
        )
        return [self.results.runs[key] for key in keys if key in self.results.runs]


def gather_launches(store: Store, study: Study) -> list[Launch]:
    """Return the launches of a study and profile, oldest first; unreadable ones are left out."""
    from ablab.store.files import read_json

    found = []
    for folder in store.launches():
        record = folder / "launch.json"
        if not record.exists():
            continue
        facts = read_json(record)
        if facts.get("study") == study.name and facts.get("profile") == study.profile:
            found.append(
                Launch(
                    id=folder.name,
                    started=facts.get("time"),
                    command=facts.get("command", ""),
                    environment=_optional(folder / "environment.json"),
                    git=_optional(folder / "git.json"),
                )
            )
    return sorted(found, key=lambda launch: launch.started or 0.0)


def _optional(path: Path) -> Mapping[str, Any]:
    from ablab.store.files import read_json

    return read_json(path) if path.exists() else {}

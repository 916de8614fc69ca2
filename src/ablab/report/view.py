"""Everything a report is made from, gathered once: study, plan, results, verdicts, findings, launches, notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ablab.report.language import Translator

if TYPE_CHECKING:
    from pathlib import Path

    from ablab.analysis.judgement import ComparisonVerdict
    from ablab.analysis.results import Results, RunRecord
    from ablab.contract.finding import Finding
    from ablab.plan.graph import Plan
    from ablab.report.references import References
    from ablab.store.layout import Store
    from ablab.store.notes import Note
    from ablab.study.schema import Study

#: Launches whose forecasts are read; older ones say little about what is running now.
_LAUNCHES = 50


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One `ablab run` of the study: when, what was typed, where, on what.

    `forecasts` are seconds by run folder, as the plan of that launch had them.
    """

    id: str
    started: float | None
    command: str
    environment: Mapping[str, Any]
    git: Mapping[str, Any]
    forecasts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class View:
    """What the sections of a report read. `t` says messages in the language of the report."""

    study: Study
    plan: Plan
    store: Store
    results: Results
    verdicts: list[ComparisonVerdict]
    findings: list[Finding]
    launches: list[Launch]
    written: float
    t: Translator = field(default_factory=Translator)
    notes: list[Note] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    references: References = field(default_factory=dict)

    def path(self, *parts: str) -> Path:
        """Return a path inside the store."""
        return self.store.root.joinpath(*parts)

    def records(self, experiment: str) -> list[RunRecord]:
        """Return the runs of an arm, over all its seeds, each once."""
        return [self.results.runs[key] for key in self._keys.get(experiment, ()) if key in self.results.runs]

    def own(self, experiment: str) -> list[RunRecord]:
        """Return the runs of an arm that no other arm uses; all of them where it shares every one.

        Arms that are only planned do not count as others: what they would share is the arm's that ran it.
        """
        records = self.records(experiment)
        alone = [record for record in records if self._live(record, experiment) == {experiment}]
        return alone or records

    def _live(self, record: RunRecord, experiment: str) -> set[str]:
        arms = self.study.experiments
        return {name for name, _ in record.users if name == experiment or name not in arms or not arms[name].planned}

    def status(self, experiment: str) -> str:
        """Return where an arm stands over its seeds, by the one that needs eyes most."""
        found = self._statuses.get(experiment, set())
        return next((status for status in _TELLING if status in found), "pending")

    def anchor(self, experiment: str) -> str:
        """Return the anchor of an experiment: its place in the study, so that no name can break it."""
        return f"arm-{self._places[experiment]}" if experiment in self._places else ""

    def comparison_anchor(self, name: str) -> str:
        """Return the anchor of a comparison."""
        names = [comparison.name for comparison in self.study.comparisons]
        return f"comparison-{names.index(name) + 1}" if name in names else ""

    def forecast(self, record: RunRecord) -> float | None:
        """Return the seconds a run was expected to take: by the last launch that forecast it, else by the plan."""
        for launch in reversed(self.launches):
            if record.name in launch.forecasts:
                return launch.forecasts[record.name]
        return record.estimate

    @property
    def counts(self) -> Mapping[str, int]:
        """How many runs of the plan have each status."""
        found: dict[str, int] = {}
        for run in self.plan.runs.values():
            found[run.status] = found.get(run.status, 0) + 1
        return found

    @property
    def live(self) -> bool:
        """Whether any run is going on."""
        return any(run.status == "running" for run in self.plan.runs.values())

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.study.experiments, 1)}

    @cached_property
    def _keys(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, dict[str, None]] = {}
        for arm in self.results.arms:
            found.setdefault(arm.experiment, {}).update(dict.fromkeys(arm.runs.values()))
        return {name: tuple(keys) for name, keys in found.items()}

    @cached_property
    def _statuses(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for arm in self.results.arms:
            found.setdefault(arm.experiment, set()).add(arm.status)
        return found


#: Statuses of an arm, what needs eyes first; done only when all of it is.
_TELLING = ("failed", "running", "paused", "waiting", "stopped", "pending", "unresolved", "planned", "done")


def gather_launches(store: Store, study: Study) -> list[Launch]:
    """Return the launches of a study and profile, oldest first; unreadable ones are left out."""
    found = []
    for folder in store.launches():
        facts = _optional(folder / "launch.json")
        if facts.get("study") == study.name and facts.get("profile") == study.profile:
            found.append((folder, facts))
    return sorted((_launch(*each) for each in found[-_LAUNCHES:]), key=lambda launch: launch.started or 0.0)


def _launch(folder: Path, facts: Mapping[str, Any]) -> Launch:
    return Launch(
        id=folder.name,
        started=facts.get("time"),
        command=str(facts.get("command", "")),
        environment=_optional(folder / "environment.json"),
        git=_optional(folder / "git.json"),
        forecasts={
            str(run.get("name")): float(run["estimate"])
            for run in _optional(folder / "plan.json").get("runs", ())
            if isinstance(run, Mapping) and isinstance(run.get("estimate"), int | float)
        },
    )


def gather_notes(store: Store, study: Study) -> list[Note]:
    """Return the journal of a study, oldest first; lines that are no notes are left out."""
    from ablab.store.notes import read_notes

    return read_notes(store.study_folder(study.name, study.profile), problems=[])


def _optional(path: Path) -> Mapping[str, Any]:
    """Return the content of a JSON file; nothing where it is missing or damaged."""
    from ablab.contract.failure import AblabError
    from ablab.store.files import read_json

    try:
        found = read_json(path)
    except (FileNotFoundError, AblabError):
        return {}
    return found if isinstance(found, Mapping) else {}

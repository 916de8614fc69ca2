"""What happened in a period, across all studies of a store: finished, failed, decided, noted; from the store alone.

Verdicts are those that were kept when they changed (`verdicts.jsonl`), failures those of states and of issues, and
everything else stands in state files, results and journals. Nothing is judged or computed anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablab.contract.failure import AblabError
from ablab.store.files import read_json, read_lines
from ablab.store.layout import RunFolder, Store
from ablab.store.notes import Note, read_notes

if TYPE_CHECKING:
    from ablab.contract.order import Order
    from ablab.contract.state import State


@dataclass(frozen=True, kw_only=True)
class Period:
    """From one Unix time (inclusive) to another (exclusive)."""

    since: float
    until: float

    def holds(self, moment: object) -> bool:
        """Whether a moment lies in the period."""
        return isinstance(moment, int | float) and self.since <= moment < self.until


@dataclass(frozen=True)
class RunLine:
    """One run with where it stands, by the names its order gives it."""

    folder: RunFolder
    state: State
    order: Order | None

    @property
    def arm(self) -> str:
        """Experiment that asked for it first."""
        return self.order.experiment if self.order is not None else "?"

    @property
    def seed(self) -> int | None:
        """Its seed; None where it draws from none."""
        return self.order.seed if self.order is not None else None

    @property
    def stage(self) -> str:
        """Its stage."""
        return self.order.stage if self.order is not None else self.folder.stage

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """Final values; none where the result cannot be read."""
        try:
            result = self.folder.read_result()
        except AblabError:
            return {}
        return {} if result is None else result.metrics

    @cached_property
    def seconds(self) -> float:
        """Seconds of work; 0 where they are not known."""
        try:
            result = self.folder.read_result()
        except AblabError:
            return 0.0
        return 0.0 if result is None else sum(result.time.values())


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A comparison whose verdicts changed in the period: the last line kept in it, and the last one before it."""

    comparison: str
    after: Mapping[str, Any]
    before: Mapping[str, Any] | None
    changes: int

    def rows(self) -> Iterator[tuple[Mapping[str, Any], str]]:
        """Yield (variant, its verdict before) of every variant whose verdict is new or another."""
        known = {v.get("experiment"): v.get("verdict") for v in (self.before or {}).get("variants", ())}
        for variant in self.after.get("variants", ()):
            was = known.get(variant.get("experiment"), "")
            if was != variant.get("verdict"):
                yield variant, str(was)


@dataclass(kw_only=True)
class StudyDigest:
    """One study and profile in the period; `metrics` are those its comparisons ever judged."""

    study: str
    profile: str
    launches: list[Mapping[str, Any]] = field(default_factory=list)
    finished: list[RunLine] = field(default_factory=list)
    failed: list[RunLine] = field(default_factory=list)
    issues: list[tuple[RunLine, Mapping[str, Any]]] = field(default_factory=list)
    decided: list[Decision] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    open: dict[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Study and profile."""
        return f"{self.study}/{self.profile}"

    @property
    def quiet(self) -> bool:
        """Whether nothing happened."""
        return not (self.launches or self.finished or self.failed or self.issues or self.decided or self.notes)

    @property
    def seconds(self) -> float:
        """Seconds of work of the runs that finished."""
        return sum(run.seconds for run in self.finished)


@dataclass(frozen=True, kw_only=True)
class Digest:
    """All studies in which something happened, the newest first. `problems` are files that could not be read."""

    period: Period
    studies: tuple[StudyDigest, ...]
    problems: tuple[str, ...] = ()


def make_digest(store: Store, period: Period) -> Digest:
    """Return what happened in a store in a period."""
    studies: dict[tuple[str, str], StudyDigest] = {}
    problems: list[str] = []

    def study(name: str, profile: str) -> StudyDigest:
        return studies.setdefault((name, profile), StudyDigest(study=name, profile=profile))

    for run in _runs(store, period, problems):
        names = (run.order.study, run.order.profile) if run.order is not None else ("?", "?")
        _take(study(*names), run, period, problems)
    for folder in store.launches():
        record = _record(folder / "launch.json")
        if record is not None and period.holds(record.get("time")):
            study(str(record.get("study")), str(record.get("profile"))).launches.append(record)
    for name, profile, folder in _study_folders(store):
        found = study(name, profile)
        kept = read_lines(folder / "verdicts.jsonl", problems=problems)
        found.decided += _decisions(kept, period)
        found.metrics += _judged(kept)
        found.notes += [note for note in read_notes(folder, problems=problems) if period.holds(note.time)]
    told = [each for each in studies.values() if not each.quiet]
    return Digest(
        period=period, studies=tuple(sorted(told, key=_newest, reverse=True)), problems=tuple(dict.fromkeys(problems))
    )


def _runs(store: Store, period: Period, problems: list[str]) -> Iterator[RunLine]:
    """Yield the runs that the period is about: ended in it, in trouble in it, or still open."""
    for folder in sorted(store.runs(), key=lambda run: run.name):
        try:
            state = folder.read_state()
            if state is None:
                continue
            ended = state.finished if state.finished is not None else state.updated
            over = state.status in ("done", "failed", "stopped")
            if over and ended < period.since and (not folder.issues_path.exists()):
                continue
            yield RunLine(folder, state, folder.read_order())
        except AblabError as error:
            problems.append(str(error).splitlines()[0])


def _take(study: StudyDigest, run: RunLine, period: Period, problems: list[str]) -> None:
    state = run.state
    ended = state.finished if state.finished is not None else state.updated
    if state.status == "done":
        if period.holds(ended):
            study.finished.append(run)
    elif ended < period.until:
        study.open[state.status] = study.open.get(state.status, 0) + 1
        if state.status == "failed" and period.holds(ended):
            study.failed.append(run)
    study.issues += [
        (run, issue)
        for issue in read_lines(run.folder.issues_path, problems=problems)
        if period.holds(issue.get("time"))
    ]


def _study_folders(store: Store) -> Iterator[tuple[str, str, Path]]:
    """Yield (study, profile, folder); names of folders stand in where no plan says the study's own."""
    root = store.root / "studies"
    for study in sorted(root.iterdir()) if root.is_dir() else ():
        for folder in sorted(study.iterdir()) if study.is_dir() else ():
            if folder.is_dir():
                record = _record(folder / "plan.json") or {}
                yield str(record.get("study") or study.name), str(record.get("profile") or folder.name), folder


def _judged(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the metrics that kept verdicts were about."""
    variants = (variant for line in lines for variant in line.get("variants", ()))
    texts = (str(condition.get("text", "")) for variant in variants for condition in variant.get("conditions", ()))
    return list(dict.fromkeys(text.split(" ")[0].partition("@")[0] for text in texts if text))


def _decisions(lines: Iterable[Mapping[str, Any]], period: Period) -> Iterator[Decision]:
    """Yield the comparisons whose verdicts are others at the end of the period than at its beginning."""
    before: dict[str, Mapping[str, Any]] = {}
    after: dict[str, Mapping[str, Any]] = {}
    changes: dict[str, int] = {}
    for line in lines:
        name, moment = str(line.get("comparison", "")), line.get("time")
        if period.holds(moment):
            after[name] = line
            changes[name] = changes.get(name, 0) + 1
        elif isinstance(moment, int | float) and moment < period.since:
            before[name] = line
    for name, last in after.items():
        found = Decision(comparison=name, after=last, before=before.get(name), changes=changes[name])
        turned = (found.before or {}).get("sensitive") != last.get("sensitive") and last.get("sensitive") is not None
        news = [variant for variant, was in found.rows() if was or variant.get("verdict") != "undecided"]
        if news or turned:
            yield found


def _record(path: Path) -> Mapping[str, Any] | None:
    try:
        record = read_json(path)
    except (OSError, AblabError):
        return None
    return record if isinstance(record, Mapping) else None


def _newest(study: StudyDigest) -> float:
    moments = [run.state.finished or run.state.updated for run in (*study.finished, *study.failed)]
    moments += [float(launch["time"]) for launch in study.launches]
    moments += [note.time for note in study.notes] + [float(d.after["time"]) for d in study.decided]
    moments += [float(issue["time"]) for _, issue in study.issues]
    return max(moments, default=0.0)

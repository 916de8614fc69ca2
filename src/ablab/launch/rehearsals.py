"""Rehearsals and probes: which configurations get one, in what order, and what hangs on them.

A rehearsal is a run of two steps, one validation and one checkpoint in a folder of its own; it finds what would fail
after hours within seconds. A later phase rehearses on the checkpoint that the rehearsal of its input left. Starting
them is the scheduler's.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ablab.contract.failure import AblabError
from ablab.contract.result import Result
from ablab.launch.endings import checkpoint_mark
from ablab.plan.configurations import Configurations, probe_folder, rehearsal_folder, steps
from ablab.plan.graph import Plan, Run
from ablab.store.layout import RunFolder, Store

#: A run that is shorter than this many rehearsals is its own rehearsal.
WORTH = 10
#: Steps of a rehearsal.
STEPS = 2
#: Seconds of a rehearsal, until the store knows better.
SECONDS = 10.0


@dataclass(kw_only=True)
class Entry:
    """The rehearsal (or probe) of one configuration.

    Args:
        digest: of the configuration.
        key: run that stands for it: the first of the plan.
        folder: where it runs.
        mode: rehearse or probe.
        status: where it stands; skipped when another rehearsal showed that its runs are short.
        message: why it failed.
        kind: stage kind.
        steps: steps of a run; None where nobody knows before it begins.
        guessed: whether nothing was known of how long a run takes.
        not_before: monotonic time before which it is not tried again.
    """

    digest: str
    key: str
    folder: RunFolder
    mode: Literal["rehearse", "probe"]
    status: Literal["pending", "running", "passed", "failed", "skipped"] = "pending"
    message: str = ""
    kind: str = ""
    steps: int | None = None
    guessed: bool = False
    not_before: float = 0.0


@dataclass
class Rehearsals:
    """The rehearsals of a launch.

    Args:
        plan: the plan.
        entries: by configuration digest.
        of_run: configuration of each run that a rehearsal stands for.
        long: runs that are held back while rehearsals are under way.
    """

    plan: Plan
    entries: dict[str, Entry] = field(default_factory=dict)
    of_run: dict[str, str] = field(default_factory=dict)
    long: set[str] = field(default_factory=set)

    def startable(self, done: Callable[[str], bool], dead: Callable[[str], bool]) -> Iterator[Entry]:
        """Yield the entries whose inputs are there, and of whose runs one at least may still begin.

        Args:
            done: whether a run is done.
            dead: whether a run will not be done in this launch.
        """
        scouts = {entry.kind for entry in self.entries.values() if entry.guessed and entry.status == "running"}
        for entry in self.entries.values():
            if entry.guessed and entry.kind in scouts:
                continue
            if entry.status == "pending" and self._idle(entry, dead):
                continue
            if entry.status == "pending" and all(self._there(key, done) for key in _inputs(self.plan, entry.key)):
                if entry.guessed:
                    scouts.add(entry.kind)
                yield entry

    def learn(self, passed: Entry) -> None:
        """Leave out what a passed rehearsal shows to be short: runs of as many steps, where nothing else was known.

        So a study of many short runs pays for one rehearsal. Of runs that nothing is known of, one is rehearsed first.
        """
        result = _result(passed.folder)
        step = result.facts.get("step.seconds") if result is not None else None
        if result is None or step is None or not passed.guessed:
            return
        worth = WORTH * sum(result.time.values())
        for entry in self.entries.values():
            count = entry.steps or result.facts.get("steps.planned")
            if entry.guessed and entry.kind == passed.kind and count is not None and count * step < worth:
                entry.status = "skipped" if entry.status == "pending" else entry.status
                self.long.difference_update(self.runs_of(entry.digest))
        # What was worth it is known now, and need not wait for another scout.
        for entry in self.entries.values():
            if entry.kind == passed.kind:
                entry.guessed = False

    def under_way(self, done: Callable[[str], bool], dead: Callable[[str], bool]) -> bool:
        """Whether a rehearsal runs, or is still to come without a long run before it.

        Args:
            done: whether a run is done.
            dead: whether a run will not be done in this launch.
        """
        memo: dict[str, bool] = {}
        return any(
            entry.status == "running"
            or (entry.status == "pending" and not self._idle(entry, dead) and self._comes(entry.key, done, dead, memo))
            for entry in self.entries.values()
        )

    def inputs(self, entry: Entry, done: Callable[[str], bool]) -> dict[str, Path]:
        """Return the folders that stand in for inputs that are not done, by key."""
        return {
            key: self.entries[self.of_run[key]].folder.path for key in _inputs(self.plan, entry.key) if not done(key)
        }

    def runs_of(self, digest: str) -> list[str]:
        """Return the runs that a rehearsal stands for."""
        return [key for key, mine in self.of_run.items() if mine == digest]

    def tidy(self) -> None:
        """Remove the checkpoints that rehearsals left; what they found out stays."""
        for entry in self.entries.values():
            if entry.status in {"passed", "failed"}:
                shutil.rmtree(entry.folder.checkpoints, ignore_errors=True)

    def _idle(self, entry: Entry, dead: Callable[[str], bool]) -> bool:
        """Whether none of the runs that an entry stands for will begin."""
        return dead(entry.key) and all(map(dead, self.runs_of(entry.digest)))

    def _there(self, key: str, done: Callable[[str], bool]) -> bool:
        if done(key):
            return True
        entry = self.entries.get(self.of_run.get(key, ""))
        return entry is not None and entry.status == "passed" and bool(checkpoint_mark(entry.folder.checkpoints))

    def _comes(self, key: str, done: Callable[[str], bool], dead: Callable[[str], bool], memo: dict[str, bool]) -> bool:
        """Whether the inputs of a run's rehearsal come by themselves: from rehearsals and from short runs."""
        if key not in memo:
            memo[key] = all(
                self._there(given, done) or (not dead(given) and self._given_comes(given, done, dead, memo))
                for given in _inputs(self.plan, key)
            )
        return memo[key]

    def _given_comes(
        self, key: str, done: Callable[[str], bool], dead: Callable[[str], bool], memo: dict[str, bool]
    ) -> bool:
        entry = self.entries.get(self.of_run.get(key, ""))
        if entry is not None and entry.status in {"pending", "running"}:
            return entry.status == "running" or self._comes(key, done, dead, memo)
        return key not in self.long and self._comes(key, done, dead, memo)


def plan_rehearsals(plan: Plan, wanted: Iterable[str], store: Store, *, device: str) -> Rehearsals:
    """Return the rehearsals that a launch of these runs needs.

    Left out are configurations whose runs are shorter than ten rehearsals, and those of which a run or a rehearsal on
    the same kind of device is done.

    Args:
        plan: the plan.
        wanted: keys of the runs to do.
        store: where earlier rehearsals are.
        device: kind of device the runs will take, cpu or cuda.
    """
    found = Rehearsals(plan=plan)
    configurations = Configurations(plan)
    seconds = usual_seconds(store)
    candidates = [key for key in wanted if steps(plan.runs[key]) and not plan.runs[key].late]
    proven = {configurations.of(key) for key in candidates if plan.runs[key].finished}
    small: dict[str, bool] = {}
    for key in candidates:
        run, digest = plan.runs[key], configurations.of(key)
        if run.finished or run.unresolved or run.status == "planned":
            continue
        if digest not in small:
            small[digest] = _is_small(run, seconds, probe_folder(store, run, digest))
        if small[digest]:
            continue
        found.long.add(key)
        if digest in proven:
            continue
        found.of_run[key] = digest
        if digest not in found.entries:
            folder = rehearsal_folder(store, run, digest)
            if passed_on(folder, device):
                proven.add(digest)
                del found.of_run[key]
                continue
            found.entries[digest] = Entry(
                digest=digest,
                key=key,
                folder=folder,
                mode="rehearse",
                kind=run.stage.kind,
                steps=_steps(run),
                guessed=run.estimate is None,
            )
    return found


def plan_probes(plan: Plan, wanted: Iterable[str], store: Store, *, device: str) -> Rehearsals:
    """Return the probes of the distinct configurations of these runs that have none yet on this kind of device."""
    found = Rehearsals(plan=plan)
    configurations = Configurations(plan)
    for key in wanted:
        run = plan.runs[key]
        if not steps(run) or run.late or run.unresolved:
            continue
        digest = configurations.of(key)
        folder = probe_folder(store, run, digest)
        found.long.add(key)
        found.of_run[key] = digest
        if digest not in found.entries:
            status: Literal["passed", "pending"] = "passed" if passed_on(folder, device) else "pending"
            found.entries[digest] = Entry(digest=digest, key=key, folder=folder, mode="probe", status=status)
    return found


def passed_on(folder: RunFolder, device: str) -> bool:
    """Whether a rehearsal or probe was passed on a kind of device."""
    result = _result(folder)
    return result is not None and result.numerics.device == device


def usual_seconds(store: Store) -> float:
    """Return how long rehearsals in this store took; the median, or a guess where there were none."""
    folder = store.root / "rehearsals"
    taken = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        result = _result(RunFolder(path))
        if result is not None and result.time:
            taken.append(sum(result.time.values()))
    return statistics.median(taken) if taken else SECONDS


def _is_small(run: Run, seconds: float, probe: RunFolder) -> bool:
    """Whether a run is shorter than ten rehearsals, as far as anybody knows."""
    if run.estimate is not None:
        return run.estimate < WORTH * seconds
    result = _result(probe)
    facts = result.facts if result is not None else {}
    count = _steps(run) or facts.get("steps.planned")
    if count is None:
        return False
    step = facts.get("step.seconds")
    return bool(count * step < WORTH * seconds if step is not None else count <= WORTH * STEPS)


def _steps(run: Run) -> int | None:
    spec = run.stage.spec
    return spec.steps(run.stage.sections, run.stage.parameters) if spec.steps else None


def _inputs(plan: Plan, key: str) -> list[str]:
    return [given.key for given in plan.runs[key].inputs]


def _result(folder: RunFolder) -> Result | None:
    try:
        return folder.read_result()
    except AblabError:
        return None

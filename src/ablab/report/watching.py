"""What `ablab watch` shows, kept up to date by looking only at what changed.

A finished run never changes and is never looked at again; an unfinished one is read when its state file has another
time or size; a plan when it was written anew. So a store of thousands of runs costs a few system calls a look.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablab.contract.failure import AblabError
from ablab.contract.state import State
from ablab.plan.statuses import status_of
from ablab.report.stamp import Mark, mark
from ablab.report.status import ORDER, StatusRow, newest_ratio, state_row, validated_as
from ablab.report.tailing import Tails
from ablab.store.files import read_json
from ablab.store.layout import RunFolder, Store

if TYPE_CHECKING:
    from ablab.plan.graph import Plan

#: Statuses of runs that a person would want to see one by one.
TELLING = frozenset({"running", "failed", "paused", "waiting", "stopped"})
#: Most runs that are shown one by one; events are read of no others.
MOST = 200


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A run as a plan names it.

    Args:
        name: of its folder; `path` below `runs/`, which differs where dropped weights are made again.
        inputs: names of the runs it reads; late: of the select runs whose choice it waits for.
        fixed: planned (never started) or unresolved, which no state changes.
        baseline: run it is held against, and by which metric.
    """

    name: str
    study: str
    experiment: str
    seed: int | None
    stage: str
    path: str = ""
    users: int = 1
    inputs: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = ()
    fixed: str = ""
    estimate: float | None = None
    baseline: tuple[str, str] | None = None

    @property
    def title(self) -> str:
        """What people call it."""
        more = f" +{self.users - 1}" if self.users > 1 else ""
        seed = "" if self.seed is None else f" seed {self.seed}"
        return f"{self.experiment}{more}{seed} {self.stage}"


@dataclass(frozen=True, kw_only=True)
class Wait:
    """A run that has not started, and why: what it needs, or nothing but a free place.

    `rank` orders: 0 never starts as things are, 1 held up, 2 waits for runs, 3 is next.
    """

    title: str
    reason: str
    rank: int


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything on the screen at one moment.

    Args:
        title: study and profile, or the store.
        counts: runs by status.
        share: of the whole work done, 0 to 1; None without runs.
        rows: runs to be shown one by one, what needs eyes first.
        waits: runs that have not started, the most telling first; `waiting` counts all of them.
        losses: (step, loss) points of the rows that have some, by run.
    """

    title: str
    store: str
    time: float
    counts: Mapping[str, int]
    share: float | None
    rows: tuple[StatusRow, ...]
    waits: tuple[Wait, ...]
    losses: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


class Watcher:
    """Looks at a store again and again.

    Args:
        store: the store.
        plan: plan of the study that is watched; None watches every study of the store by its last plan.
        replan: makes the plan anew, called when a launch began since the last look.
    """

    def __init__(self, store: Store, plan: Plan | None = None, replan: Any = None) -> None:
        self._store, self._replan = store, replan
        self._plan = plan
        self._runs: dict[str, Planned] = {} if plan is None else planned_runs(plan)
        self._title = str(store.root) if plan is None else f"{plan.study.name}/{plan.study.profile}"
        self._plan_marks: dict[str, Mark] = {}
        self._launches = mark(f"{store.root}/launches")
        self._folders: tuple[Mark, frozenset[str]] = (None, frozenset())
        self._seen: dict[str, _Seen] = {}
        self._tails = Tails()
        self._at_work = False

    @property
    def root(self) -> Path:
        """The folder of the store."""
        return self._store.root

    def look(self, *, most: int = MOST) -> Snapshot:
        """Return how things stand.

        Args:
            most: runs to show one by one; events of no others are read.
        """
        self._renew_plans()
        begun = self._begun()
        statuses: dict[str, str] = {}
        rows: list[StatusRow] = []
        for name in {**self._runs, **(dict.fromkeys(begun) if self._plan is None else {})}:
            run = self._runs.get(name)
            seen = self._status(name, run, begun)
            statuses[name] = seen.status
            if seen.status in TELLING and seen.state is not None:
                run = run or self._unplanned(name)
                rows.append(_row(run, seen.status, seen.state))
        place = {status: index for index, status in enumerate(ORDER)}
        rows.sort(key=lambda row: (place.get(row.status, 0), -(row.progress or 0.0)))
        shown = [self._with_gap(row) for row in rows[:most]]
        self._tails.keep(row.run for row in shown)
        return Snapshot(
            title=self._title,
            store=str(self._store.root),
            time=time.time(),
            counts=Counter(statuses.values()),
            share=self._share(statuses),
            rows=tuple(shown),
            waits=tuple(self._waits(statuses)),
            losses={row.run: points for row in shown if (points := self._tails.losses(row.run))},
        )

    # --- What there is ------------------------------------------------------------------------------------------------

    def _renew_plans(self) -> None:
        if self._plan is not None:
            launches = mark(f"{self._store.root}/launches")
            if launches != self._launches and self._replan is not None:
                self._launches = launches
                self._plan = self._replan()
                self._runs = planned_runs(self._plan)
            return
        root = f"{self._store.root}/studies"
        marks = {
            path: mark(path)
            for study in _names(root)
            for profile in _names(f"{root}/{study}")
            for path in (f"{root}/{study}/{profile}/plan.json",)
        }
        if marks != self._plan_marks:
            self._plan_marks = marks
            self._runs = {}
            for path, found in marks.items():
                if found is not None:
                    self._runs.update(_recorded_runs(path))

    def _begun(self) -> frozenset[str]:
        """Return the names of run folders; listed again only when one was added."""
        root = f"{self._store.root}/runs"
        found = mark(root)
        if found != self._folders[0]:
            self._folders = (found, frozenset(name for name in _names(root) if name[:1] != "."))
        return self._folders[1]

    def _status(self, name: str, run: Planned | None, begun: frozenset[str]) -> _Seen:
        """Return where a run stands; its files are looked at only if they may have changed."""
        if run is not None and run.fixed and name not in begun:
            return _Seen(run.fixed)
        if name not in begun:
            return _PENDING
        known = self._seen.get(name)
        if known is not None and known.status == "done":
            return known
        path = f"{self._store.root}/runs/{run.path if run is not None and run.path else name}"
        marks = (mark(f"{path}/state.json"), mark(f"{path}/result.json"))
        if known is not None and known.marks == marks and known.status != "running":
            return known
        status, state = status_of(path)
        if state is None and status in TELLING:
            state = RunFolder(path).known_state() or State(status="stopped", updated=time.time())
        self._seen[name] = found = _Seen(status, state, marks)
        return found

    def _unplanned(self, name: str) -> Planned:
        """Return what a run's order says of it, where no plan asks for it any more."""
        folder = self._store.run(name)
        order = folder.known_order()
        self._runs[name] = found = Planned(
            name=name,
            study=f"{order.study}/{order.profile}" if order is not None else "",
            experiment=order.experiment if order is not None else "?",
            seed=order.seed if order is not None else None,
            stage=order.stage if order is not None else folder.stage,
        )
        return found

    # --- What it means ------------------------------------------------------------------------------------------------

    def _with_gap(self, row: StatusRow) -> StatusRow:
        """Return a running row with the ratio to its baseline at the last step that both have."""
        self._tails.read(row.run, self._store.run(row.run))
        run = self._runs.get(row.run)
        if row.status != "running" or run is None or run.baseline is None:
            return row
        other, metric = run.baseline
        self._tails.read(other, self._store.run(other))
        for name in validated_as(metric):
            found = newest_ratio(self._tails.validations(row.run, name), self._tails.validations(other, name))
            if found is not None:
                return dataclasses.replace(row, gap=found[0], gap_step=found[1])
        return row

    def _share(self, statuses: Mapping[str, str]) -> float | None:
        """Return the share of work done, by estimates where every run has one, by number otherwise."""
        runs = [run for name, run in self._runs.items() if statuses.get(name) not in ("planned", None)]
        if not runs:
            return None
        known = all(run.estimate for run in runs)
        whole = done = 0.0
        for run in runs:
            weight = run.estimate if known and run.estimate else 1.0
            whole += weight
            if statuses[run.name] == "done":
                done += weight
            elif (seen := self._seen.get(run.name)) is not None and seen.state is not None:
                done += weight * seen.state.progress
        return done / whole

    def _waits(self, statuses: Mapping[str, str]) -> list[Wait]:
        found = []
        self._at_work = any(status == "running" for status in statuses.values())
        for name, run in self._runs.items():
            status = statuses.get(name)
            if status in ("pending", "unresolved"):
                found.append(self._wait(run, statuses))
            elif status in ("waiting", "paused"):
                state = self._seen[name].state
                reason = state.message if state is not None and state.message else status
                found.append(Wait(title=run.title, reason=reason, rank=1))
        found.sort(key=lambda wait: wait.rank)
        return found

    def _wait(self, run: Planned, statuses: Mapping[str, str]) -> Wait:
        if run.unresolved:
            names = ", ".join(run.unresolved[:3])
            return Wait(title=run.title, reason=f"never starts: {names} is not resolved", rank=0)
        needed = [*run.inputs, *run.late]
        broken = next((name for name in needed if statuses.get(name) == "failed"), None)
        if broken is not None:
            return Wait(title=run.title, reason=f"blocked: {self._title_of(broken, run)} failed", rank=0)
        missing = [name for name in needed if statuses.get(name) != "done"]
        if missing:
            told = ", ".join(f"{self._title_of(name, run)} ({self._standing(name, statuses)})" for name in missing[:3])
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            word = "the choice of " if any(name in run.late for name in missing) else ""
            return Wait(title=run.title, reason=f"waits for {word}{told}{more}", rank=2)
        reason = "ready: waits for a free place" if self._at_work else "ready, and no launch is at work"
        return Wait(title=run.title, reason=reason, rank=3)

    def _title_of(self, name: str, beside: Planned) -> str:
        """Return what a run is called beside one that needs it: its stage alone where the rest is the same."""
        run = self._runs.get(name)
        if run is None:
            return name
        same = (run.experiment, run.seed, run.users) == (beside.experiment, beside.seed, beside.users)
        return run.stage if same else run.title

    def _standing(self, name: str, statuses: Mapping[str, str]) -> str:
        status = statuses.get(name, "unknown")
        seen = self._seen.get(name)
        if status == "running" and seen is not None and seen.state is not None:
            return f"running, {100 * seen.state.progress:.0f} %"
        return status


@dataclass(frozen=True)
class _Seen:
    """Where a run stood when it was last read, and the marks of its files then."""

    status: str
    state: State | None = None
    marks: tuple[Mark, Mark] = (None, None)


_PENDING = _Seen("pending")


def _row(run: Planned, status: str, state: State) -> StatusRow:
    experiment = run.experiment if run.users == 1 else f"{run.experiment} +{run.users - 1}"
    return state_row(
        state, status=status, experiment=experiment, seed=run.seed, stage=run.stage, run=run.name, study=run.study
    )


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))  # noqa: PTH208 - names alone, 10^4 of them
    except (FileNotFoundError, NotADirectoryError):
        return []


def planned_runs(plan: Plan) -> dict[str, Planned]:
    """Return the runs of a plan by folder name, each with the run it is held against."""
    from ablab.plan.describe import plan_json

    study = plan.study
    baselines: dict[str, tuple[str, str]] = {}
    for comparison in study.comparisons:
        arms, metric = frozenset(comparison.arms[1:]), comparison.metric
        for (experiment, seed, stage), key in plan.by_user.items():
            if experiment in arms:
                base = plan.run_of(comparison.baseline, seed, stage)
                if base is not None and base.key != key:
                    baselines.setdefault(plan.runs[key].name, (base.name, metric))
    return _from_rows(plan_json(plan)["runs"], f"{study.name}/{study.profile}", baselines)


def _recorded_runs(path: str) -> dict[str, Planned]:
    """Return the runs of a plan.json; none where it is missing, damaged, or written by something else."""
    try:
        record = read_json(path)
        return _from_rows(record["runs"], f"{record.get('study')}/{record.get('profile')}", {})
    except (OSError, AblabError, KeyError, TypeError, IndexError, AttributeError):
        return {}


def _from_rows(
    rows: Iterable[Mapping[str, Any]], study: str, baselines: Mapping[str, tuple[str, str]]
) -> dict[str, Planned]:
    names = {row["key"]: row["name"] for row in rows}
    found = {}
    for row in rows:
        name, users = row["name"], list(dict.fromkeys(user[0] for user in row["users"]))
        unresolved = tuple(row.get("unresolved") or ())
        status = row.get("status")
        found[name] = Planned(
            name=name,
            study=study,
            experiment=users[0] if users else "?",
            seed=row.get("seed"),
            stage=row["stage"],
            path=f"{name}/remake" if row.get("again") else "",
            users=max(1, len(users)),
            inputs=tuple(given[1] for given in row.get("inputs") or ()),
            late=tuple(names.get(key, key) for key in row.get("late") or ()),
            unresolved=unresolved if status != "done" else (),
            fixed=status if status in ("planned", "unresolved") else "",
            estimate=row.get("estimate"),
            baseline=baselines.get(name),
        )
    return found

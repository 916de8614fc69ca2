"""The plan for people and machines: rows of a table, lines of a summary, JSON, and what changed since the last plan."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from ablab.contract.failure import AblabError
from ablab.contract.units import duration, size
from ablab.plan.commands import command_lines
from ablab.plan.graph import Plan, Run
from ablab.store.files import read_json, write_json
from ablab.store.layout import Store
from ablab.store.redact import redact

#: Names shown of a list; the rest is counted.
_SHOWN = 6
DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Changes:
    """How a plan differs from an earlier one, by names of run folders.

    Args:
        new: to be run, and not in the earlier plan.
        left: to be run, and in the earlier plan already.
        reused: done already, whoever did them.
        superseded: in the earlier plan and not asked for any more; they stay in the store.
    """

    new: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    reused: tuple[str, ...] = ()
    superseded: tuple[str, ...] = ()


class Rows(Sequence[dict[str, Any]]):
    """One row a run, in the order of the plan, with numbers as people read them; made when they are looked at."""

    def __init__(self, runs: Sequence[Run], known: Mapping[str, Run]) -> None:
        self._runs, self._known = runs, known

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> Rows: ...

    def __getitem__(self, place: int | slice) -> dict[str, Any] | Rows:
        if isinstance(place, slice):
            return Rows(self._runs[place], self._known)
        return _row(self._runs[place], self._known)


def plan_rows(plan: Plan) -> Rows:
    """Return one row a run, in the order of the plan."""
    return Rows(list(plan.runs.values()), plan.runs)


def _row(run: Run, known: Mapping[str, Run]) -> dict[str, Any]:
    waits = dict.fromkeys(step_of(known[given.key]) for given in run.inputs if given.key in known)
    return {
        "run": run.name,
        "experiment": experiments_of(run),
        "stage": run.stage.name,
        "seed": "" if run.seed is None else run.seed,
        "waits for": ", ".join(waits),
        "status": _status(run),
        "estimate": _estimate(run),
        "source": run.estimate_source,
        "disk": size(run.bytes),
    }


def _estimate(run: Run) -> str:
    """Return how long a run may take; an arm's estimate by its author is told at the stages that train."""
    if run.estimate == 0 and run.estimate_source == "study":
        return "in its arm's"
    return duration(run.remaining if run.status == "running" else run.estimate)


def step_of(run: Run) -> str:
    """Return a run as a reader finds it: experiment, stage and seed."""
    return f"{run.experiment}.{run.stage.name}" + ("" if run.seed is None else f"/{run.seed}")


def experiments_of(run: Run) -> str:
    """Return the experiments that use a run, the first by name and the others counted."""
    names = list(dict.fromkeys(experiment for experiment, _ in run.users))
    return names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}"


def plan_summary(plan: Plan) -> list[str]:
    """Return the plan in a few lines: what is done and left, time, disk, critical path, what is unresolved or late."""
    runs = plan.runs.values()
    counts = Counter(run.status for run in runs)
    left = sum(counts.values()) - counts["done"] - counts["planned"]
    states = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    lines = [f"{len(plan.runs)} runs of {len({name for run in runs for name, _ in run.users})} experiments: {states}"]
    if left:
        lines += [_time_line(plan), _sharing_line(plan), _path_line(plan)]
        lines.append(f"disk: {size(plan.bytes_left)} to come" if plan.bytes_left is not None else "disk: unknown")
    unresolved = list(dict.fromkeys(name for run in runs for name in run.unresolved))
    if unresolved:
        lines.append(f"never start as they are, not resolved: {_listed(unresolved)}")
    late = sum(1 for run in runs if run.late)
    if late:
        lines.append(f"{late} runs wait for what a select stage chooses; their keys are made then")
    lines += [f"gate {gate.experiment} {gate.status}: {gate.text}" for gate in plan.gates]
    lines += command_lines(plan)
    return [line for line in lines if line]


def _time_line(plan: Plan) -> str:
    if plan.seconds_left is None:
        return "time: unknown; run `ablab check --probe`, or give experiments an estimate"
    slots = f"{plan.slots} side by side" if plan.slots and plan.slots > 1 else "one after the other"
    unknown = f", and {plan.unknown} runs of unknown length" if plan.unknown else ""
    left = [run for run in plan.runs.values() if run.status not in ("done", "planned")]
    sources = Counter(run.estimate_source.partition(":")[0] for run in left if run.estimate_source)
    named = ", ".join(f"{source} for {count}" for source, count in sources.most_common())
    return f"time: {duration(plan.seconds_left)} left, {slots}{unknown} (from {named or 'the runs themselves'})"


def _sharing_line(plan: Plan) -> str:
    if plan.seconds_left is None or plan.seconds_without_sharing is None:
        return ""
    saved = plan.seconds_without_sharing - plan.seconds_left
    if saved < 1:
        return ""
    told = f"sharing runs saves {duration(saved)}"
    whole, spent = plan.device_seconds_without_sharing, plan.device_seconds
    if not whole or spent is None or plan.study.compute.device_days is None:
        return told
    share, counted = 1 - spent / whole, plan.study.compute.device_days
    return (
        f"{told}; in device-days {(whole - spent) / DAY:.0f} of {whole / DAY:.0f} ({share:.0%}), which of the "
        f"{counted:g} that the study counts with nothing shared is {share * counted:.0f}"
    )


def _path_line(plan: Plan) -> str:
    if not plan.critical_path or plan.critical_seconds is None:
        return ""
    runs = [plan.runs[key] for key in plan.critical_path]
    names = [
        f"{run.experiment}.{run.stage.name}" + (f" seed {run.seed}" if run.seed is not None else "") for run in runs
    ]
    return f"critical path: {' -> '.join(names)} ({duration(plan.critical_seconds)})"


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON values, as `plan.json` holds it."""
    return {
        "format": 1,
        "study": plan.study.name,
        "profile": plan.study.profile,
        "time": time.time(),
        "overrides": redact(list(plan.study.overrides)),
        "slots": plan.slots,
        "seconds_left": plan.seconds_left,
        "seconds_without_sharing": plan.seconds_without_sharing,
        "device_seconds": plan.device_seconds,
        "device_seconds_without_sharing": plan.device_seconds_without_sharing,
        "unknown": plan.unknown,
        "bytes_left": plan.bytes_left,
        "critical_path": [plan.runs[key].name for key in plan.critical_path],
        "critical_seconds": plan.critical_seconds,
        "runs": [_run_json(run, plan) for run in plan.runs.values()],
    }


def _run_json(run: Run, plan: Plan) -> dict[str, Any]:
    return {
        "name": run.name,
        "key": run.key,
        "stage": run.stage.name,
        "kind": run.stage.kind,
        "seed": run.seed,
        "users": [list(user) for user in run.users],
        "inputs": [[given.reference, plan.runs[given.key].name, given.checkpoint] for given in run.inputs],
        "status": run.status,
        "priority": run.priority,
        "config": run.config,
        "estimate": run.estimate,
        "estimate_source": run.estimate_source,
        "remaining": run.remaining,
        "again": run.again,
        "bytes": run.bytes,
        "unresolved": list(run.unresolved),
        "late": list(run.late),
        "chosen": dict(run.chosen),
    }


def freeze_plan(plan: Plan, store: Store, launch: Path | None = None, *, whole: bool = True) -> None:
    """Write plan.json into a launch folder, and as the study's last plan where it is the whole study's.

    Args:
        plan: the plan.
        store: the store.
        launch: folder of the launch.
        whole: False for a plan of some experiments or seeds, which supersedes nothing.
    """
    record = plan_json(plan)
    if launch is not None:
        write_json(launch / "plan.json", record)
    if whole:
        write_json(_last_plan(plan, store), record)


def changes(plan: Plan, store: Store, *, wanted: Collection[str] | None = None) -> Changes:
    """Return how a plan differs from the study's last one.

    Args:
        plan: the plan.
        store: where the last one is; without one, everything is new or reused, and nothing superseded.
        wanted: keys that were asked for; None takes all. Only a whole plan supersedes.
    """
    before = _names_before(_last_plan(plan, store))
    runs = [run for key, run in plan.runs.items() if wanted is None or key in wanted]
    open_runs = [run.name for run in runs if run.status not in ("done", "planned")]
    now = {run.name for run in plan.runs.values()}
    gone = [name for name in before if name not in now and store.run(name).exists] if wanted is None else []
    return Changes(
        new=tuple(name for name in open_runs if name not in before),
        left=tuple(name for name in open_runs if name in before),
        reused=tuple(run.name for run in runs if run.status == "done"),
        superseded=tuple(gone),
    )


def changes_lines(found: Changes) -> list[str]:
    """Return what a relaunch prints of the difference."""
    words = {"new": "new", "left": "left from before", "reused": "reused", "superseded": "superseded (kept)"}
    lines = []
    for name, word in words.items():
        names: tuple[str, ...] = getattr(found, name)
        if names:
            lines.append(f"{len(names)} {word}: {_listed(names)}")
    return lines


def _last_plan(plan: Plan, store: Store) -> Path:
    return store.study_folder(plan.study.name, plan.study.profile) / "plan.json"


def _names_before(path: Path) -> dict[str, None]:
    """Return the run names of an earlier plan; a plan that is missing or damaged has none."""
    try:
        record = read_json(path)
        rows = record["runs"] if isinstance(record, Mapping) else []
        return {str(row["name"]): None for row in rows}
    except (FileNotFoundError, AblabError, KeyError, TypeError):
        return {}


def _status(run: Run) -> str:
    if run.unresolved and run.status != "done":
        return f"{run.status} ({_listed(run.unresolved, 1)})"
    if run.again:
        return f"{run.status} ({run.again})"
    return f"{run.status} (late)" if run.late and run.status == "pending" else run.status


def _listed(names: Collection[str], most: int = _SHOWN) -> str:
    shown = list(names)[:most]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")

"""Rows of `ablab status` and `ablab watch`: where every run stands, from the store alone.

Reads one small state file a run; events are read only for runs that are going on (for the gap to the baseline at
the same step), so a store of ten thousand runs is listed in well under two seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ablab.contract.state import State
from ablab.contract.units import duration, figure, percent, size

if TYPE_CHECKING:
    from ablab.plan.graph import Plan, Run
    from ablab.store.layout import RunFolder, Store
    from ablab.study.schema import Study

#: Order in which statuses are listed: what needs eyes first.
ORDER = ("running", "failed", "paused", "waiting", "stopped", "pending", "unresolved", "planned", "done")


@dataclass(frozen=True, kw_only=True)
class StatusRow:
    """Where one run stands. Seconds and bytes; None where unknown."""

    experiment: str
    seed: int | None
    stage: str
    run: str
    status: str
    progress: float = 0.0
    step: int = 0
    steps: int = 0
    elapsed: float | None = None
    remaining: float | None = None
    per_second: float | None = None
    loss: float | None = None
    best: float | None = None
    best_metric: str = ""
    gap: float | None = None
    gap_step: int | None = None
    device: str = ""
    memory: int | None = None
    study: str = ""
    message: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def study_rows(study: Study, plan: Plan, store: Store) -> list[StatusRow]:
    """Return a row for every run of a study's plan, the ones that need eyes first."""
    rows = [_plan_row(study, plan, store, run) for run in plan.runs.values()]
    position = {status: index for index, status in enumerate(ORDER)}
    return sorted(rows, key=lambda row: position.get(row.status, 0))


def unfinished_rows(store: Store) -> Iterator[StatusRow]:
    """Yield the runs of a whole store that began and are not done, whatever study they belong to."""
    for folder in store.runs():
        state = folder.known_state()
        if (state is not None and state.status == "done") or folder.done:
            continue
        if state is None and not folder.attempts():
            continue
        order = folder.known_order()
        status = believed(folder, state)
        yield state_row(
            state or State(status="stopped", updated=folder.path.stat().st_mtime),
            experiment=order.experiment if order else "?",
            seed=order.seed if order else None,
            stage=folder.stage,
            run=folder.name,
            study=f"{order.study}/{order.profile}" if order else "",
            status=status,
        )


def believed(folder: RunFolder, state: State | None) -> str:
    """Return the status of an unfinished run; "running" is believed only while its claim is alive."""
    if state is not None and state.status != "running":
        return state.status
    from ablab.store.claims import is_alive, read_holder

    holder = read_holder(folder.claim_path)
    return "running" if holder is not None and is_alive(holder) else "stopped"


def _plan_row(study: Study, plan: Plan, store: Store, run: Run) -> StatusRow:
    folder = store.run(run.name).remake if run.again else store.run(run.name)
    state = folder.known_state() if run.status not in {"pending", "planned", "unresolved"} else None
    names: dict[str, Any] = {
        "experiment": run.experiment if len(run.users) == 1 else _users(run),
        "seed": run.seed,
        "stage": run.stage.name,
        "run": run.name,
        "study": f"{study.name}/{study.profile}",
    }
    if state is None:
        return StatusRow(**names, status=run.status, remaining=run.estimate)
    gap, step = _gap(study, plan, store, run) if run.status == "running" else (None, None)
    return state_row(state, status=run.status, gap=gap, gap_step=step, **names)


def _users(run: Run) -> str:
    names = list(dict.fromkeys(experiment for experiment, _ in run.users))
    return names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}"


def state_row(state: State, **names: Any) -> StatusRow:
    """Return the row of a run from its state; `names` are the fields of a row that a state does not tell."""
    running = names["status"] == "running"
    end = state.finished or (time.time() if running else state.updated)
    metric = next(iter(state.best), "")
    return StatusRow(
        **names,
        progress=1.0 if names["status"] == "done" else state.progress,
        step=state.step,
        steps=state.steps,
        elapsed=None if state.started is None else end - state.started,
        remaining=_remaining(state) if running else None,
        per_second=state.per_second,
        loss=state.loss,
        best=state.best.get(metric),
        best_metric=metric,
        device=state.device,
        memory=state.gpu_memory or state.rss or None,
        message=state.message,
    )


def _remaining(state: State) -> float | None:
    if state.remaining is None:
        return None
    return max(0.0, state.remaining - (time.time() - state.updated))


def _gap(study: Study, plan: Plan, store: Store, run: Run) -> tuple[float | None, int | None]:
    """Return the ratio of the run's newest validation value to its baseline's at the same step, and that step."""
    experiment, seed = run.users[0]
    for comparison in study.comparisons:
        if experiment in comparison.arms[1:]:
            other = plan.run_of(comparison.baseline, seed, run.stage.name)
            if other is None:
                continue
            theirs, ours = _validations(store.run(other.name)), _validations(store.run(run.name))
            for metric in validated_as(comparison.metric):
                found = newest_ratio(ours.get(metric, {}), theirs.get(metric, {}))
                if found is not None:
                    return found
    return None, None


def validated_as(metric: str) -> tuple[str, ...]:
    """Return the names under which a comparison's metric may be seen during a run: its own, and that of validation."""
    name = metric.partition("@")[0]
    return tuple(dict.fromkeys((name, f"val/{name.rpartition('/')[2]}")))


def newest_ratio(ours: Mapping[int, float], theirs: Mapping[int, float]) -> tuple[float, int] | None:
    """Return (ratio, step) at the last step that both have; None where they share none."""
    common = [step for step in ours if theirs.get(step)]
    return (ours[max(common)] / theirs[max(common)], max(common)) if common else None


def _validations(folder: RunFolder) -> dict[str, dict[int, float]]:
    """Return the validation values of a run so far, by metric and step."""
    from ablab.store.events import read_events

    found: dict[str, dict[int, float]] = {}
    for event in read_events(folder, problems=[]) if folder.path.exists() else ():
        if event.get("e") == "validation":
            for metric, value in event["values"].items():
                found.setdefault(metric, {})[event["step"]] = value
    return found


COLUMNS = (
    "experiment", "seed", "stage", "status", "%", "step", "elapsed", "left", "it/s", "loss", "best", "gap", "device",
    "memory",
)  # fmt: skip


def cells(row: StatusRow) -> list[str]:
    """Return a row's cells as text, in the order of COLUMNS."""
    return [
        row.experiment,
        "all" if row.seed is None else str(row.seed),
        row.stage,
        row.status if not row.message or row.status in {"done", "running"} else f"{row.status}: {row.message}"[:60],
        percent(row.progress) if row.status not in {"pending", "planned", "unresolved"} else "",
        f"{row.step}/{row.steps}" if row.steps else "",
        duration(row.elapsed) if row.elapsed is not None else "",
        duration(row.remaining) if row.remaining is not None else "",
        figure(row.per_second, digits=3) if row.per_second else "",
        figure(row.loss) if row.loss is not None else "",
        f"{figure(row.best)} {row.best_metric}" if row.best is not None else "",
        f"{100 * (row.gap - 1):+.1f} % @{row.gap_step}" if row.gap is not None else "",
        row.device,
        size(row.memory) if row.memory else "",
    ]


def one_line(rows: Iterable[StatusRow], *, free: int | None = None) -> str:
    """Return one line for a prompt or ssh: counts by status, mean progress, longest remaining time."""
    listed = list(rows)
    counts = {status: sum(row.status == status for row in listed) for status in ORDER}
    parts = [f"{count} {status}" for status, count in counts.items() if count] or ["nothing unfinished"]
    left = [row.remaining for row in listed if row.status == "running" and row.remaining is not None]
    if left:
        parts.append(f"longest has {duration(max(left))} left")
    if free is not None:
        parts.append(f"{size(free)} free")
    return ", ".join(parts)

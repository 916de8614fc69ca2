"""Collect what the store holds about a study: every run's record, every arm's metrics; complete or, while a run is
still going, partial and marked so.

A metric belongs to the last stage of an arm that yields it. Judging is left to `verdicts`, time to `timing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from ablab.analysis.reading import Traces, read_all
from ablab.analysis.results import Arm, Results, RunRecord, Value
from ablab.analysis.timing import mark_shared
from ablab.contract.result import Result
from ablab.contract.state import State
from ablab.plan.graph import Plan, Run
from ablab.store.files import CorruptFile
from ablab.store.layout import RunFolder, Store
from ablab.store.spans import read_spans
from ablab.study.schema import Experiment, Stage, Study

__all__ = ["Results", "collect", "collect_run", "yields"]

#: Statuses of an arm's stages, the most telling first.
_TELLING = ("failed", "running", "paused", "waiting", "stopped", "unresolved", "pending", "planned", "done")


def collect(
    study: Study,
    plan: Plan,
    store: Store,
    *,
    with_curves: bool = True,
    known: dict[str, RunRecord] | None = None,
) -> Results:
    """Return all that is known about the study.

    Args:
        plan: tells which run each arm, seed and stage is, and where it stands.
        with_curves: False leaves events unread, which is enough for verdicts and much faster.
        known: records of finished runs from an earlier call, which are not read again; new ones are added.
    """
    kept = {} if known is None else {key: known[key] for key, run in plan.runs.items() if run.finished and key in known}
    folders = {key: store.run(run.name) for key, run in plan.runs.items() if key not in kept}
    traces = read_all({key: folder for key, folder in folders.items() if folder.exists}) if with_curves else {}
    records = {
        key: kept[key] if key in kept else collect_run(run, folders[key], traces=traces.get(key))
        for key, run in plan.runs.items()
    }
    if known is not None:
        known.update({key: record for key, record in records.items() if record.done})
    records = mark_shared(records)
    seeded = seeded_runs(plan)
    arms = []
    for experiment in study.experiments.values():
        for seed in experiment.seeds or study.seeds:
            arms.append(_arm(experiment, seed, plan, records, seeded))
    return Results(study=study, arms=tuple(arms), runs=records)


def seeded_runs(plan: Plan) -> frozenset[str]:
    """Return the keys of runs whose result depends on the seed, by themselves or through what they read."""
    found: set[str] = set()
    for key, run in plan.runs.items():
        sources = [source.key for source in run.inputs] + list(run.late)
        if run.seed is not None or found.intersection(sources):
            found.add(key)
    return frozenset(found)


def collect_run(run: Run, folder: RunFolder, *, traces: Traces | None = None) -> RunRecord:
    """Return the record of one run of the plan. A file that cannot be read is named in the record's message.

    Args:
        run: the run.
        folder: where it is.
        traces: what its events tell; None leaves curves out.
    """
    status, problem = "done" if run.finished else str(run.status), ""
    result: Result | None = None
    state: State | None = None
    try:
        result, state = folder.read_result(), folder.read_state()
    except CorruptFile as error:
        status, problem = "failed", str(error)
    record = RunRecord(
        key=run.key,
        name=run.name,
        stage=run.stage.name,
        kind=run.stage.kind,
        seed=run.seed,
        users=tuple(run.users),
        status=status,
        failure=state.kind if state is not None and status in ("failed", "stopped", "waiting", "paused") else None,
        message=problem or (state.message if state is not None and status != "done" else ""),
        estimate=run.estimate,
    )
    if not folder.exists:
        return record
    told = traces or Traces()
    record = replace(
        record,
        attempts=len(folder.attempts()),
        issues=tuple(folder.read_issues()),
        spans=tuple(read_spans(folder)),
        checkpoints=told.checkpoints,
        utilisation=told.utilisation,
        curves=told.curves,
        looks={name: len(curve.steps) for name, curve in told.curves.items() if not curve.name.startswith("train/")},
        message=record.message or "; ".join(told.problems),
    )
    record = _with_state(record, state)
    return _with_result(record, result) if result is not None else _running(record, state, told)


def _with_state(record: RunRecord, state: State | None) -> RunRecord:
    if state is None:
        return record
    return replace(
        record,
        started=state.started,
        finished=state.finished,
        step=state.step,
        steps_total=state.steps or None,
        device=state.device,
    )


def _with_result(record: RunRecord, result: Result) -> RunRecord:
    """Fill a record from `result.json`."""
    return replace(
        record,
        metrics=dict(result.metrics),
        best={name: (best.value, best.step) for name, best in result.best.items()},
        facts=dict(result.facts),
        time=dict(result.time),
        step_times=dict(result.steps),
        peak=dict(result.peak),
        numerics=result.numerics,
        shared=result.shared,
        evaluations=result.evaluations,
        artifacts={name: artifact.bytes for name, artifact in result.artifacts.items()},
        attempts=max(record.attempts, result.attempts),
    )


def _running(record: RunRecord, state: State | None, told: Traces) -> RunRecord:
    """Fill a record from events and state while there is no result: last values so far, best values so far."""
    latest = dict(state.last) if state is not None else {}
    latest |= {name: curve.values[-1] for name, curve in told.curves.items() if "/" in name and curve.values}
    peak = {"rss": state.rss, "gpu": state.gpu_memory} if state is not None else {}
    return replace(record, metrics=latest, time=told.time, peak={name: size for name, size in peak.items() if size})


def _arm(
    experiment: Experiment, seed: int, plan: Plan, records: Mapping[str, RunRecord], seeded: frozenset[str]
) -> Arm:
    """Return one arm at one seed."""
    keys = {
        stage.name: key
        for stage in experiment.stages
        if (key := plan.by_user.get((experiment.name, seed, stage.name))) is not None
    }
    own = [records[key] for key in keys.values() if key in records]
    values = _values(experiment, keys, records)
    status = next((status for status in _TELLING if any(r.status == status for r in own)), "pending")
    if experiment.planned:
        status = "planned"
    broken = next((record for record in own if record.status == status and record.status != "done"), None)
    return Arm(
        experiment=experiment.name,
        seed=seed,
        status=status,
        runs=keys,
        values=values,
        seeded=frozenset(name for name, value in values.items() if value.key in seeded),
        failure=broken.failure if broken is not None else None,
        message=broken.message if broken is not None else "",
    )


def _values(experiment: Experiment, keys: Mapping[str, str], records: Mapping[str, RunRecord]) -> dict[str, Value]:
    """Return each metric from the last stage that yields it; partial while a later stage may still yield it."""
    values: dict[str, Value] = {}
    open_later: list[Stage] = []
    for stage in reversed(experiment.stages):
        record = records.get(keys.get(stage.name, ""))
        if record is None or not record.done:
            open_later.append(stage)
        if record is None:
            continue
        for metric in record.metrics:
            if metric not in values:
                partial = any(later is stage or yields(later, metric) for later in open_later)
                values[metric] = _value(metric, record, partial=partial)
    return values


def _value(metric: str, record: RunRecord, *, partial: bool) -> Value:
    curve = record.curves.get(metric)
    best, best_step = record.best.get(metric, (None, None))
    return Value(
        metric=metric,
        last=record.metrics[metric],
        step=curve.steps[-1] if curve is not None and curve.steps else record.step,
        best=best,
        best_step=best_step,
        stage=record.stage,
        key=record.key,
        partial=partial,
        looks=max(1, record.looks.get(metric, 1)),
    )


def yields(stage: Stage, metric: str) -> bool:
    """Whether a stage declares the metric; `*/perplexity` of a stage with a `split` means that split only."""
    declared = stage.spec.metrics if stage.spec.yields is None else stage.spec.yields(stage.parameters) or ()
    for pattern in declared:
        if not fnmatchcase(metric, pattern):
            continue
        split = getattr(stage.parameters, "split", None)
        if not pattern.startswith("*/") or not isinstance(split, str) or metric.startswith(f"{split}/"):
            return True
    return False

"""Writing the order of an attempt: everything resolved, with the numerics of the first attempt when it resumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ablab.contract.kinds import is_command
from ablab.contract.order import Input, Numerics, Order, Resources
from ablab.launch.endings import checkpoint_mark
from ablab.plan.graph import Plan, Run
from ablab.store.files import CorruptFile, read_json
from ablab.store.hub import lock_path, read_lock
from ablab.store.layout import RunFolder, Store
from ablab.study.schema import Experiment, Study


@dataclass(frozen=True, kw_only=True)
class Common:
    """What all orders of a launch share.

    Args:
        source: folder of the frozen source.
        study_folder: folder of the study file, where its relative paths start.
        deadline: Unix time at which workers checkpoint and stop.
        track: trackers.
    """

    source: str | None = None
    study_folder: str | None = None
    deadline: float | None = None
    track: tuple[str, ...] = ()


def build_order(
    run: Run,
    *,
    plan: Plan,
    store: Store,
    common: Common,
    resources: Resources,
    attempt: int = 1,
    numerics: Numerics | None = None,
    mode: str = "run",
    folder: Path | None = None,
    inputs: Mapping[str, Path] | None = None,
) -> Order:
    """Return the order of one attempt.

    Args:
        run: what to do.
        plan: where its inputs are looked up.
        store: where run folders are.
        common: what all orders share.
        resources: where and how it runs.
        attempt: its number.
        numerics: of the first attempt, when it resumes.
        mode: run, probe or rehearse.
        folder: run folder; None takes the run's own.
        inputs: folders to read instead of the inputs' own, by key (a rehearsal may read another rehearsal).
    """
    study, stage = plan.study, run.stage
    given = []
    for needed in run.inputs:
        other = plan.runs[needed.key]
        path = (inputs or {}).get(needed.key) or store.run(other.name).path
        given.append(
            Input(
                reference=needed.reference,
                stage=other.stage.name,
                kind=other.stage.kind,
                key=needed.key,
                path=str(path),
                checkpoint=needed.checkpoint,
            )
        )
    return Order(
        key=run.key,
        stage=stage.name,
        kind=stage.kind,
        task=study.task.name,
        study=study.name,
        profile=study.profile,
        experiment=run.experiment,
        seed=run.seed,
        version=stage.spec.version,
        sections={name: section.model_dump(mode="json", by_alias=True) for name, section in stage.sections.items()},
        parameters=stage.parameters.model_dump(mode="json", by_alias=True),
        inputs=tuple(given),
        revisions=read_lock(lock_path(study.path)) if study.path and run.stage.spec.references else {},
        folder=str(folder or store.run(run.name).path),
        attempt=attempt,
        resources=resources,
        numerics=numerics,
        mode=mode,
        deadline=common.deadline,
        source=common.source,
        study_folder=common.study_folder,
        track=common.track,
        wanted=wanted_metrics(run, plan.study) if is_command(stage.spec) else (),
    )


def wanted_metrics(run: Run, study: Study) -> tuple[str, ...]:
    """Return the metrics a study judges by that only this command can yield.

    Those that another kind of stage yields are left out; of several commands in a pipeline, one that declares a metric
    has to yield it, else the last.
    """
    wanted: dict[str, None] = {}
    for name in dict.fromkeys(experiment for experiment, _ in run.users):
        experiment = study.experiments[name]
        for comparison in study.comparisons:
            if name in comparison.arms:
                metrics = [comparison.metric, *(condition.metric for condition in comparison.criterion.conditions)]
                wanted |= {metric: None for metric in metrics if _yielding(experiment, metric) == run.stage.name}
    return tuple(wanted)


def _yielding(experiment: Experiment, metric: str) -> str | None:
    """Return the name of the stage that has to yield a metric; None where no command has to."""
    commands = [stage for stage in experiment.stages if is_command(stage.spec)]
    others = [stage for stage in experiment.stages if not is_command(stage.spec)]
    if any(fnmatchcase(metric, pattern) for stage in others for pattern in stage.spec.metrics):
        return None
    unknown = []
    for stage in reversed(commands):
        declared = stage.spec.yields(stage.parameters) if stage.spec.yields is not None else ()
        if declared is None:
            unknown.append(stage.name)
        elif metric in declared:
            return stage.name
    return next(iter(unknown), None)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What an earlier attempt leaves to the next one.

    Args:
        numerics: of the first attempt that recorded them.
        resources: of the last attempt, for the memory it saved.
    """

    numerics: Numerics | None = None
    resources: Resources | None = None


def kept(folder: RunFolder) -> Kept:
    """Return what the next attempt at a run keeps; nothing of numerics where there is no checkpoint to resume from."""
    found = kept_of_finished(folder)
    return found if checkpoint_mark(folder.checkpoints) else Kept(resources=found.resources)


def kept_of_finished(folder: RunFolder) -> Kept:
    """Return what a run keeps whose weights are made again: it is to come out as it did."""
    order = folder.known_order()
    return Kept(numerics=_first_numerics(folder), resources=order.resources if order else None)


def next_resources(wanted: Resources, earlier: Kept, *, machine: int) -> tuple[Resources, Numerics | None]:
    """Return the resources and numerics of the next attempt.

    Threads stay those of the numerics record, as long as the machine has them; memory saved before stays saved. On
    another kind of device nothing is kept: a resumed run goes on there with a record of its own.

    Args:
        wanted: what a first attempt would get.
        earlier: what the last attempt leaves.
        machine: cores.
    """
    numerics, before = earlier.numerics, earlier.resources
    if before is not None and bool(before.devices) == bool(wanted.devices):
        saved = ("micro_batch", "evaluation_batch", "loss_chunk", "parameters")
        wanted = wanted.model_copy(update={name: getattr(before, name) for name in saved})
    if numerics is None or (numerics.device == "cuda") != bool(wanted.devices):
        return wanted, None
    threads = min(numerics.threads, machine)
    return wanted.model_copy(update={"threads": threads}), numerics.model_copy(update={"threads": threads})


def _first_numerics(folder: RunFolder) -> Numerics | None:
    for number in folder.attempts():
        try:
            content = read_json(folder.attempt(number).path / "numerics.json")
            return Numerics.model_validate({key: value for key, value in content.items() if key != "format"})
        except (FileNotFoundError, CorruptFile, ValueError, AttributeError):
            continue
    return None

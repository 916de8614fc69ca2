"""What is left of a plan costs: seconds and bytes of each run, and of the whole on this machine.

The source of a figure is named with it, best first: finished runs of the same configuration; finished runs whose steps
cost the same, scaled by steps and validations; a probe or rehearsal of the configuration; finished runs of other arms,
scaled likewise; the study's own estimate. Where none of them knows, the figure is unknown and counted as such.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

from ablab.contract.failure import AblabError
from ablab.contract.task import Before
from ablab.plan.configurations import Configurations, probe_folder, rehearsal_folder
from ablab.plan.devices import Devices, devices
from ablab.plan.graph import Plan, Run
from ablab.plan.history import History, Length, Sample, length_of
from ablab.plan.schedule import Job, critical_path, makespan
from ablab.store.layout import Store
from ablab.store.processes import cores
from ablab.study.schema import Experiment, Retention, Study

#: Share of a training step that its forward pass takes.
_FORWARD = 1 / 3
#: Bytes of a parameter in fp32, and of Adam's two moments.
_WEIGHT, _MOMENTS = 4, 8


class Estimate(NamedTuple):
    """Seconds and bytes of a run, and where the seconds come from."""

    seconds: float | None
    source: str
    bytes: int | None


_UNKNOWN = Estimate(None, "", None)


def forecast(plan: Plan, store: Store | None, *, slots: int | None = None, here: Devices | None = None) -> None:
    """Fill in the estimates of a plan's runs and the forecast of the whole.

    Args:
        plan: the plan, with statuses.
        store: where history and probes are.
        slots: runs side by side; None takes what this machine would run.
        here: the devices of this machine; None looks.
    """
    left = [run for run in plan.runs.values() if run.status not in ("done", "planned")]
    estimator = _Estimator(plan, store, here or devices())
    if not estimator.knows_anything:
        plan.unknown, plan.slots = len(left), slots
        plan.seconds_left = plan.seconds_without_sharing = plan.critical_seconds = None if left else 0.0
        for run in plan.runs.values():
            if run.stage.spec.leaves is not None or run.stage.spec.leaves_after is not None:
                run.bytes = estimator.declared(run)
        sizes = [run.bytes for run in left if run.bytes is not None]
        plan.bytes_left = sum(sizes) if sizes or not left else None
        return
    for run in plan.runs.values():
        if run.status != "done":
            run.estimate, run.estimate_source, run.bytes = estimator.of(run)
    plan.slots = slots or default_slots(plan, left, estimator.here)
    summarize(plan, left)


def summarize(plan: Plan, left: list[Run]) -> None:
    """Sum up what is left into the plan's forecast; a run of unknown length counts as nothing, and is counted."""
    plan.unknown = sum(1 for run in left if _seconds(run) is None)
    known = len(left) > plan.unknown or not left
    jobs = {run.key: Job(_seconds(run) or 0.0, [given.key for given in run.inputs]) for run in _running_first(left)}
    in_order = {run.key: jobs[run.key] for run in left}
    chain, longest = critical_path(in_order)
    plan.critical_path = chain if known else ()
    plan.critical_seconds = longest if known else None
    plan.seconds_left = makespan(jobs, plan.slots or 1) if known else None
    alone = _unshared(left)
    plan.seconds_without_sharing = makespan(alone, plan.slots or 1) if known else None
    if known:
        one = plan.study.compute.processes
        plan.device_seconds = one * sum(job.seconds for job in jobs.values())
        plan.device_seconds_without_sharing = one * sum(job.seconds for job in alone.values())
    sizes = [run.bytes for run in left if run.bytes is not None]
    plan.bytes_left = sum(sizes) if sizes or not left else None


def default_slots(plan: Plan, left: list[Run], here: Devices) -> int:
    """Return how many runs this machine does side by side: its GPUs, else its cores shared as the launcher does."""
    compute = plan.study.compute
    if here.gpus:
        return max(1, here.gpus * compute.share // compute.processes)
    machine = cores()
    depth: dict[str, int] = {}
    width: dict[int, int] = {}
    for run in left:
        level = depth[run.key] = 1 + max((depth.get(given.key, 0) for given in run.inputs), default=0)
        width[level] = width.get(level, 0) + 1
    side = min(machine, compute.slots or max(width.values(), default=1))
    threads = compute.threads or max(1, machine // side // compute.processes)
    return max(1, min(side, machine // (threads * compute.processes)))


def _seconds(run: Run) -> float | None:
    """Return the seconds a run still needs."""
    return run.remaining if run.status == "running" and run.remaining is not None else run.estimate


def _running_first(left: list[Run]) -> list[Run]:
    return sorted(left, key=lambda run: run.status != "running")


def _unshared(left: list[Run]) -> dict[Hashable, Job]:
    """Return the jobs there would be if every experiment ran alone."""
    jobs: dict[Hashable, Job] = {}
    for run in left:
        seconds = _seconds(run) or 0.0
        for name in dict.fromkeys(experiment for experiment, _ in run.users):
            jobs[run.key, name] = Job(seconds, [(given.key, name) for given in run.inputs])
    return jobs


class _Estimator:
    """Estimates runs; each configuration once."""

    def __init__(self, plan: Plan, store: Store | None, here: Devices) -> None:
        self.here = here
        self._plan = plan
        self._store = store
        self._history = History(store, plan.runs.values(), here) if store is not None else None
        self._probes = store is not None and any((store.root / name).is_dir() for name in ("probes", "rehearsals"))
        self._configurations = Configurations(plan)
        self._guesses = _guesses(plan.study)
        self._known: dict[tuple[str, int | None], Estimate] = {}

    @property
    def knows_anything(self) -> bool:
        """Whether there is any source at all."""
        return bool(self._guesses or self._probes or (self._history is not None and self._history))

    def of(self, run: Run) -> Estimate:
        """Return the estimate of a run."""
        # Runs of one configuration may go over other data.
        place = (run.config, self._rows(run))
        known = self._known.get(place)
        if known is None or not run.config:
            known = self._known[place] = self._measured(run)
        if known.seconds is None and self._guesses:
            guess = self._guesses.get(run.experiment)
            # A run that a planned arm shares with a live one is not what the planned arm's author thought of.
            seconds = None if guess is None or guess.planned is not (run.status == "planned") else _share_of(guess, run)
            if seconds is not None:
                return Estimate(seconds, "study", known.bytes)
        return known

    def _measured(self, run: Run) -> Estimate:
        """Return what the store says of a configuration."""
        sources: list[Callable[[Run], Estimate]] = [self._same, self._similar, self._probed, self._others]
        for source in sources:
            found = source(run)
            if found.seconds is not None:
                return found
        return Estimate(None, "", self.declared(run))

    def declared(self, run: Run) -> int | None:
        """Return the disk a run leaves by what its stage kind tells beforehand."""
        return declared_bytes(run, self._plan.study.retention, self._before)

    def _before(self, run: Run) -> list[Before]:
        """Return the runs that a run reads, with the facts of those that are done."""
        found = []
        for given in run.inputs:
            other = self._plan.runs.get(given.key)
            if other is None:
                continue
            result = None
            if self._store is not None and other.status == "done":
                result = self._store.run(other.name).read_result()
            facts = {} if result is None else result.facts
            stage = given.reference.partition("@")[0]
            found.append(Before(kind=other.stage.kind, stage=stage, parameters=other.stage.parameters, facts=facts))
        return found

    def _same(self, run: Run) -> Estimate:
        samples = self._history.of_configuration(run) if self._history is not None else []
        rows = self._rows(run)
        alike = [sample for sample in samples if rows in (None, sample.facts.get("samples.train", rows))]
        if alike or not samples:
            return _from_samples(alike, None, f"history: {_runs(alike)} of this configuration")
        source = f"history: {_runs(samples)} of this configuration over other data, scaled"
        return _from_samples(samples, run, source, rows=rows)

    def _similar(self, run: Run) -> Estimate:
        samples = self._history.of_cost(run) if self._history is not None else []
        source = f"history: {_runs(samples)} with the same step, scaled"
        return _from_samples(samples, run, source, rows=self._rows(run))

    def _others(self, run: Run) -> Estimate:
        samples = self._history.of_kind(run) if self._history is not None else []
        source = f"history: {_runs(samples)} of other arms, scaled"
        return _from_samples(samples, run, source, rows=self._rows(run))

    def _rows(self, run: Run) -> int | None:
        """Return the samples of an epoch of a run, where the data it reads can be told without being prepared."""
        parameters = run.stage.parameters
        if getattr(parameters, "epochs", None) is None:
            return None
        return _rows_of(self._plan, run, getattr(parameters, "split", "train"))

    def _probed(self, run: Run) -> Estimate:
        """Return the estimate that a probe or rehearsal gives: its step, times the steps, and its validation."""
        if self._store is None or not self._probes:
            return _UNKNOWN
        digest = self._configurations.of(run.key)
        for word, place in (("rehearsal", rehearsal_folder), ("probe", probe_folder)):
            try:
                result = place(self._store, run, digest).read_result()
            except AblabError:
                continue
            if result is None or result.numerics.device_name != self.here.of(run.stage):
                continue
            seconds = probed_seconds(result.facts, run)
            if seconds is not None:
                return Estimate(seconds, word, probed_bytes(result.facts, run, self._plan.study.retention))
        return _UNKNOWN


def _rows_of(plan: Plan, run: Run, split: str) -> int | None:
    """Return the samples of a split that the stages before a run prepare."""
    for given in run.inputs:
        other = plan.runs.get(given.key)
        if other is None:
            continue
        tell = other.stage.spec.samples
        found = tell(other.stage.sections, other.stage.parameters).get(split) if tell is not None else None
        found = found if found is not None else _rows_of(plan, other, split)
        if found is not None:
            return found
    return None


def _runs(samples: list[Sample]) -> str:
    return "1 run" if len(samples) == 1 else f"{len(samples)} runs"


def _from_samples(samples: list[Sample], run: Run | None, source: str, *, rows: int | None = None) -> Estimate:
    """Return the median of samples, each scaled to the length of a run where one is given."""
    seconds = [sample.total if run is None else scaled(sample, run, rows=rows) for sample in samples]
    if not seconds:
        return _UNKNOWN
    return Estimate(statistics.median(seconds), source, round(statistics.median([s.bytes for s in samples])))


def scaled(sample: Sample, run: Run, *, rows: int | None = None) -> float:
    """Return the seconds a run would take whose steps and validations cost what the sample's did.

    `rows` are the samples of an epoch of the run; None takes those of the sample.
    """
    wanted = length_of(run.stage, samples=rows if rows is not None else sample.facts.get("samples.train"))
    had = sample.length
    if wanted.steps is None or not had.steps:
        return sample.total
    steps, validations = wanted.steps / had.steps, wanted.validations / had.validations
    return sample.start + sample.seconds * steps + sample.validation * validations


def probed_seconds(facts: Mapping[str, Any], run: Run) -> float | None:
    """Return the seconds of a run by the facts of its probe; None where they do not tell.

    Facts: step.seconds (s), steps.planned, validation.seconds (s, one validation), samples.train, samples.val. A probe
    that did not validate is given a forward pass (a third of a step) for each batch of the validation split.
    """
    step = facts.get("step.seconds")
    length = length_of(run.stage, samples=facts.get("samples.train"))
    steps = length.steps or facts.get("steps.planned")
    if not step or not steps:
        return None
    if length.steps is None:
        length = Length(steps=steps, validations=length.validations)
    validations = length.validations / (
        getattr(getattr(run.stage.parameters, "validation", None), "batches", None) or 1
    )
    validation = facts.get("validation.seconds")
    if validation is None:
        validation = _validation_batches(facts, run) * step * _FORWARD
    return float(step * steps + validation * validations)


def _validation_batches(facts: Mapping[str, Any], run: Run) -> float:
    """Return the batches of one validation, in training batches."""
    parameters = run.stage.parameters
    schedule = getattr(parameters, "validation", None)
    size = getattr(parameters, "batch", None) or 1
    samples = float(facts.get("samples.val") or 0.0)
    limit = getattr(schedule, "batches", None)
    if limit is not None:
        samples = min(samples, limit * (getattr(schedule, "batch", None) or size))
    return samples / size


def probed_bytes(facts: Mapping[str, Any], run: Run, retention: Retention) -> int | None:
    """Return the disk a run leaves by the facts of its probe: one checkpoint times those that are kept."""
    size = facts.get("checkpoint.bytes")
    if size is None and facts.get("parameters.total"):
        trained = facts.get("parameters.trained", facts["parameters.total"])
        size = facts["parameters.total"] * _WEIGHT + trained * _MOMENTS
    if size is None:
        return None
    policy = getattr(run.stage.parameters, "checkpoints", None)
    kept = int(retention.last) + min(retention.best, getattr(policy, "best", 0))
    steps = length_of(run.stage, samples=facts.get("samples.train")).steps
    for every in (getattr(policy, "keep_every", None), retention.every):
        if every and steps:
            kept += int(steps // every)
    return int(size) * max(1, kept)


def declared_bytes(run: Run, retention: Retention, before: Callable[[Run], list[Before]]) -> int | None:
    """Return the disk a run leaves by what its stage kind tells beforehand; `before` looks at what it reads."""
    spec = run.stage.spec
    size = spec.leaves(run.stage.sections, run.stage.parameters) if spec.leaves is not None else None
    if spec.leaves_after is not None:
        size = spec.leaves_after(run.stage.sections, run.stage.parameters, before(run))
    if size is None or not spec.makes_checkpoints:
        return size
    return probed_bytes({"checkpoint.bytes": size}, run, retention)


def _guesses(study: Study) -> dict[str, Experiment]:
    """Return the experiments with an estimate that was given for the profile, since a profile changes the work."""
    place, of_profile = "experiments.{}.estimate", f"profiles.{study.profile}.experiments.{{}}.estimate"
    return {
        name: experiment
        for name, experiment in study.experiments.items()
        if experiment.estimate is not None
        and (study.profile == "full" or of_profile.format(name) in study.lines or place.format(name) not in study.lines)
    }


def _share_of(experiment: Experiment, run: Run) -> float | None:
    """Return what a run has of its experiment's estimate: all of it is training, split by steps over its stages."""
    own = [stage.name for stage in experiment.stages if stage.kind == run.stage.kind]
    if run.stage.name not in own or experiment.estimate is None:
        return None
    trains = [stage for stage in experiment.stages if stage.spec.makes_checkpoints] or list(experiment.stages)
    names = [stage.name for stage in trains]
    if run.stage.name not in names:
        return 0.0
    steps = [length_of(stage).steps for stage in trains]
    if any(count is None for count in steps):
        return experiment.estimate / len(trains)
    total = sum(count or 0.0 for count in steps)
    return experiment.estimate * (steps[names.index(run.stage.name)] or 0.0) / total

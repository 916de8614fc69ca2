"""What a check may look at: the study, its plan, and facts that only running can tell, from results or probes.

A fact comes from the result of a run, else from a probe or rehearsal of the same configuration, else from what the
task can derive from the study's own numbers. Where none of them knows it, a check says "not checked".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ablab.audit.training import TrainingStage, training_stages
from ablab.contract.failure import AblabError
from ablab.contract.kinds import trains
from ablab.contract.result import Result
from ablab.plan.configurations import Configurations, probe_folder, rehearsal_folder
from ablab.plan.graph import Plan, Run
from ablab.store.layout import RunFolder, Store
from ablab.study.schema import Comparison, Experiment, Stage, Study

#: What a rehearsal or probe of two steps says about a run's length is no fact about the run.
_OF_LENGTH = frozenset({"tokens.seen", "samples.seen", "epochs.seen", "steps.done", "steps.planned", "stopped.early"})
#: Facts a task can tell from a study and one of its experiments without running it, by name.
Derivations = Mapping[str, Callable[[Study, Experiment], Any]]
Source = Literal["result", "probe", "derived"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A fact and where it comes from."""

    value: Any
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A finished run with its result and folder."""

    run: Run
    folder: RunFolder
    result: Result


class AuditView:
    """The study as the checks see it.

    Args:
        study: the resolved study.
        plan: its plan; None where there is none yet.
        store: where results and probes are; None where there are none.
        derivations: what the task can derive without running.
    """

    def __init__(
        self,
        study: Study,
        *,
        plan: Plan | None = None,
        store: Store | None = None,
        derivations: Derivations | None = None,
    ) -> None:
        self.study = study
        self.plan = plan
        self.store = store
        self.derivations = derivations or {}
        self._training: dict[str, tuple[TrainingStage, ...]] = {}

    def comparisons(self) -> Iterator[tuple[int, Comparison]]:
        """Yield (position, comparison)."""
        yield from enumerate(self.study.comparisons)

    def arms(self, comparison: Comparison, *, controls: bool = False) -> tuple[Experiment, ...]:
        """Return baseline and variants, with `controls` those too; planned arms included."""
        names = comparison.arms if controls else (comparison.baseline, *comparison.variants)
        return tuple(self.study.experiments[name] for name in dict.fromkeys(names))

    def seeds(self, experiment: Experiment) -> tuple[int, ...]:
        """Return the seeds asked of an experiment."""
        return experiment.seeds or self.study.seeds

    def training(self, experiment: Experiment) -> tuple[TrainingStage, ...]:
        """Return every training stage an arm's weights went through (`ablab.audit.training`), looked up once."""
        if experiment.name not in self._training:
            self._training[experiment.name] = tuple(training_stages(self.study, experiment))
        return self._training[experiment.name]

    def runs(self, experiment: Experiment, *, seed: int | None = None) -> Iterator[Run]:
        """Yield the planned runs of an experiment, stage by stage, for one seed or all of them, each once."""
        if self.plan is None:
            return
        seen: set[str] = set()
        for each in self.seeds(experiment) if seed is None else (seed,):
            for stage in experiment.stages:
                run = self.plan.run_of(experiment.name, each, stage.name)
                if run is not None and run.key not in seen:
                    seen.add(run.key)
                    yield run

    def done(self, experiment: Experiment, *, seed: int | None = None) -> Iterator[Done]:
        """Yield the finished runs of an experiment."""
        for run in self.runs(experiment, seed=seed):
            if run.key in self._results:
                yield self._results[run.key]

    @property
    def has_results(self) -> bool:
        """Whether any run that measures something is finished; prepared data alone is no result."""
        return any(done.run.stage.spec.metrics for done in self._results.values())

    def facts(self, experiment: str, seed: int | None = None, stage: str | None = None) -> dict[str, Any] | None:
        """Return measured facts, of one seed or the first that has any, of one stage or all of them merged.

        None where nothing has run, not even as a probe.
        """
        arm = self.study.experiments[experiment]
        for each in self.seeds(arm) if seed is None else (seed,):
            merged: dict[str, Any] = {}
            for run in self.runs(arm, seed=each):
                if stage in (None, run.stage.name):
                    merged |= self._measured.get(run.key, {})
            if merged:
                return merged
        return None

    def fact(self, experiment: str, name: str) -> Fact | None:
        """Return one fact of an arm: measured where it is, else derived by the task, else None."""
        arm = self.study.experiments[experiment]
        for seed in self.seeds(arm):
            for run in self.runs(arm, seed=seed):
                if name in self._measured.get(run.key, {}):
                    source: Source = "result" if run.key in self._results else "probe"
                    return Fact(value=self._measured[run.key][name], source=source)
        value = self.derived(arm, name)
        return None if value is None else Fact(value=value, source="derived")

    def derived(self, experiment: Experiment, name: str) -> Any:
        """Return what the task derives of an arm without running it; None where it does not, or cannot tell."""
        derive = self.derivations.get(name)
        return None if derive is None else derive(self.study, experiment)

    def values(self, experiment: Experiment, metric: str, *, best: bool = False) -> dict[int, float]:
        """Return finished values of a metric by seed, from the last stage that has it."""
        name, found = metric.partition("@")[0], {}
        for seed in self.seeds(experiment):
            for done in self.done(experiment, seed=seed):
                if best and name in done.result.best:
                    found[seed] = done.result.best[name].value
                elif name in done.result.metrics:
                    found[seed] = done.result.metrics[name]
        return found

    def line(self, where: str, comparison: Comparison | None = None) -> int | None:
        """Return the line of the study file for a place, the comparison's where the place has none."""
        line = self.study.line(where)
        return line if line is not None or comparison is None else comparison.line

    @cached_property
    def _results(self) -> dict[str, Done]:
        """Finished runs of the plan by key; a result that cannot be read counts as unfinished here."""
        found: dict[str, Done] = {}
        if self.plan is None or self.store is None:
            return found
        for key, run in self.plan.runs.items():
            folder = self.store.run(run.name)
            result = _readable(folder) if run.status == "done" or folder.done else None
            if result is not None:
                found[key] = Done(run=run, folder=folder, result=result)
        return found

    @cached_property
    def _measured(self) -> dict[str, dict[str, Any]]:
        """Facts by key: of the result, over those of a rehearsal or probe of the same configuration."""
        found: dict[str, dict[str, Any]] = {}
        if self.plan is None or self.store is None:
            return found
        configurations = Configurations(self.plan)
        probed: dict[str, dict[str, Any]] = {}
        for key, run in self.plan.runs.items():
            if trains(run.stage.spec) or run.stage.spec.steps is not None:
                digest = configurations.of(key)
                if digest not in probed:
                    probed[digest] = self._probe(run, digest)
                found[key] = dict(probed[digest])
            if key in self._results:
                found[key] = found.get(key, {}) | dict(self._results[key].result.facts)
        return {key: facts for key, facts in found.items() if facts}

    def _probe(self, run: Run, digest: str) -> dict[str, Any]:
        """Return the facts of a configuration's rehearsal and probe."""
        facts: dict[str, Any] = {}
        if self.store is not None:
            for folder in (rehearsal_folder(self.store, run, digest), probe_folder(self.store, run, digest)):
                result = _readable(folder)
                facts |= {} if result is None else result.facts
        return {name: value for name, value in facts.items() if name not in _OF_LENGTH}


def _readable(folder: RunFolder) -> Result | None:
    """Return the result of a folder; None where there is none or it is damaged (the plan reports damage)."""
    try:
        return folder.read_result()
    except AblabError:
        return None


def stage_place(experiment: Experiment, stage: Stage) -> str:
    """Return the study path of a stage of an experiment."""
    return f"experiments.{experiment.name}.pipeline.{stage.name}"

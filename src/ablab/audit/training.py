"""How an arm trains, as its study says: learning rates, length, validations; across all stages it goes through.

Stages are recognised by what they declare (steps, epochs, an optimiser), not by a task's names, so that the checks
hold for every task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ablab.contract.kinds import is_select, trains
from ablab.study.schema import Experiment, Stage, Study


def setting_of(block: Any, path: str) -> Any:
    """Return the value at a dotted path of nested blocks; None where any of it is missing."""
    for name in path.split("."):
        block = getattr(block, name, None)
        if block is None:
            return None
    return block


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStage:
    """A stage that trains.

    Args:
        owner: experiment whose pipeline holds it (an arm may continue another's).
        steps: optimiser steps, where the study tells; `epochs` where it counts those instead.
        batch: effective batch, samples a step.
        tuned: study paths a select stage chooses for it.
    """

    owner: str
    stage: Stage
    steps: int | None
    epochs: float | None
    batch: int | None
    learning_rate: float | None
    validations: int | None
    tuned: tuple[str, ...] = ()

    @property
    def samples(self) -> int | None:
        """Samples seen in training; None where the study counts epochs."""
        return None if self.steps is None or self.batch is None else self.steps * self.batch


def training_stages(study: Study, experiment: Experiment) -> list[TrainingStage]:
    """Return every training stage an arm's weights went through, its own last, those of other experiments included."""
    return [_describe(study, owner, stage) for owner, stage in lineage(study, experiment) if trains(stage.spec)]


def lineage(study: Study, experiment: Experiment) -> Iterator[tuple[str, Stage]]:
    """Yield (experiment, stage) of all stages an arm depends on, inputs first, each once.

    Inputs of select stages are left out: trials of a sweep are not part of the arm.
    """
    seen: set[tuple[str, str]] = set()

    def visit(owner: Experiment, stage: Stage) -> Iterator[tuple[str, Stage]]:
        if (owner.name, stage.name) in seen:
            return
        seen.add((owner.name, stage.name))
        for need in stage.needs:
            other = owner if need.experiment is None else study.experiments.get(need.experiment)
            if other is None:
                continue
            source = next((each for each in other.stages if each.name == need.stage), None)
            if source is not None and not is_select(source.spec):
                yield from visit(other, source)
        yield owner.name, stage

    for stage in experiment.stages:
        if not is_select(stage.spec):
            yield from visit(experiment, stage)


def built_by(study: Study, experiment: Experiment, stage: str | None) -> Mapping[str, Any] | None:
    """Return the architecture that a stage gives the model it builds, where an arm depends on such a stage."""
    source = None if stage is None else stage_of(study, experiment, stage)
    found = None if source is None else getattr(source[1].parameters, "architecture", None)
    return found if isinstance(found, Mapping) else None


def stage_of(study: Study, experiment: Experiment, name: str) -> tuple[str, Stage] | None:
    """Return (experiment, stage) of a stage that an arm depends on, by the name that the arm calls it."""
    for owner, each in lineage(study, experiment):
        if name == f"{owner}.{each.name}" or (owner == experiment.name and name == each.name):
            return owner, each
    return None


def _describe(study: Study, owner: str, stage: Stage) -> TrainingStage:
    parameters, spec = stage.parameters, stage.spec
    steps = spec.steps(stage.sections, parameters) if spec.steps is not None else setting_of(parameters, "steps")
    batch = (
        spec.effective_batch(stage.sections, parameters)
        if spec.effective_batch is not None
        else setting_of(parameters, "batch")
    )
    every = setting_of(parameters, "validation.every")
    looks = None if steps is None else 1 if every is None else max(1, -(-steps // every))
    return TrainingStage(
        owner=owner,
        stage=stage,
        steps=steps,
        epochs=setting_of(parameters, "epochs"),
        batch=batch,
        learning_rate=setting_of(parameters, "optimizer.learning_rate"),
        validations=looks,
        tuned=_tuned(study, owner, stage),
    )


def _tuned(study: Study, owner: str, stage: Stage) -> tuple[str, ...]:
    """Return the paths that select stages choose for a stage."""
    paths: list[str] = []
    experiment = study.experiments[owner]
    for need in stage.needs:
        other = experiment if need.experiment is None else study.experiments.get(need.experiment)
        source = next((s for s in other.stages if s.name == need.stage), None) if other is not None else None
        if source is not None and is_select(source.spec):
            paths += list(source.parameters.sweep)
    return tuple(paths)

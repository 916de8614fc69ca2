"""Stage kinds: those of a task, and the generic ones that every task's pipeline may hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablab.contract.command import COMMAND
from ablab.contract.merge import MERGE
from ablab.contract.select import SELECT
from ablab.contract.tables import TABLES
from ablab.contract.task import StageSpec, TaskSpec

#: Keys of a stage that are not its parameters.
STAGE_KEYS = ("kind", "needs")


def generic_kinds() -> Mapping[str, StageSpec]:
    """Return the stage kinds that belong to no task, by name."""
    return {SELECT.kind: SELECT, COMMAND.kind: COMMAND, MERGE.kind: MERGE, **{spec.kind: spec for spec in TABLES}}


def stage_kinds(task: TaskSpec) -> Mapping[str, StageSpec]:
    """Return every stage kind a pipeline of the task may hold; the task's own come first and win."""
    return {**task.stages, **{kind: spec for kind, spec in generic_kinds().items() if kind not in task.stages}}


def is_select(spec: StageSpec) -> bool:
    """Tell whether a stage chooses parameters for the stage that needs it."""
    return spec.kind == SELECT.kind


def is_command(spec: StageSpec) -> bool:
    """Tell whether a stage runs a program of the user's, whose inside nobody sees."""
    return spec.parameters is COMMAND.parameters


def trains(spec: StageSpec) -> bool:
    """Tell whether a stage counts its length in steps or epochs."""
    fields: Mapping[str, Any] = spec.parameters.model_fields
    return "steps" in fields and "epochs" in fields

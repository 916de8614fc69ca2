"""From an order to what it names: the task, the stage's typed parameters, the function that runs it."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, cast

from pydantic import ValidationError

from ablab.contract.base import Strict
from ablab.contract.context import Context
from ablab.contract.failure import ConfigError
from ablab.contract.kinds import stage_kinds
from ablab.contract.order import Order
from ablab.contract.registry import find_component, find_task, is_file_reference
from ablab.contract.result import Outcome
from ablab.contract.task import StageSpec, TaskSpec
from ablab.training.task import TaskCode


def task_of(order: Order) -> TaskSpec:
    """Return the task of an order."""
    return find_task(order.task, folder=order.study_folder)


def stage_of(order: Order, task: TaskSpec) -> StageSpec:
    """Return the declaration of an order's stage kind."""
    kinds = stage_kinds(task)
    if order.kind not in kinds:
        raise ConfigError(f"task {task.name} has no stage kind {order.kind!r}; known: {', '.join(sorted(kinds))}")
    return kinds[order.kind]


def load(reference: str, order: Order, *, like: Any) -> Any:
    """Return what `module:attribute` or `file.py:Name` names."""
    if is_file_reference(reference):
        return find_component(reference, folder=order.study_folder, like=like)
    module, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        missing = getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and missing and not module.startswith(missing):
            raise ConfigError(f"{reference} needs the package {missing}, which is not installed") from error
        raise ConfigError(f"{reference} names nothing: {error}") from error


def _stage_function(order: Order, context: Context) -> Outcome:
    """Stand for the signature of a stage function."""
    raise TypeError("only its signature is used")


def run_stage(reference: str, order: Order, context: Context) -> Outcome:
    """Call the function that computes a stage."""
    return cast(Outcome, load(reference, order, like=_stage_function)(order, context))


def parameters_of(order: Order) -> Any:
    """Return the stage's own parameters, typed."""
    spec = stage_of(order, task_of(order))
    return _typed(spec.parameters, order.parameters, f"parameters of stage {order.stage}")


def sections_of(order: Order, task: TaskSpec) -> dict[str, Strict]:
    """Return the task sections that the order holds, typed."""
    return {
        name: _typed(task.sections[name], raw, name) for name, raw in order.sections.items() if name in task.sections
    }


def _typed(model: type[Strict], raw: dict[str, Any], where: str) -> Any:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, (where, *first["loc"])))
        raise ConfigError(f"{path}: {first['msg']} (found {first['input']!r})") from error


def build_code(order: Order) -> TaskCode:
    """Return the compute-plane half of the order's task, or of its stage kind where that has its own.

    Code that takes `parameters` gets the stage's own, typed; code that takes `revisions` those of the study's lock
    file, and `resources` the order's.
    """
    task = task_of(order)
    reference = stage_of(order, task).code or task.code
    if reference is None:
        raise ConfigError(f"task {task.name} names no code; stage kind {order.kind} needs one")
    make = load(reference, order, like=_code)
    sections = sections_of(order, task)
    takes = inspect.signature(make).parameters
    more: dict[str, Any] = {"parameters": parameters_of(order)} if "parameters" in takes else {}
    more |= {"revisions": order.revisions} if "revisions" in takes else {}
    more |= {"resources": order.resources} if "resources" in takes else {}
    return cast(TaskCode, make(sections, inputs=order.inputs, study_folder=order.study_folder, **more))


def _code(sections: Any, *, inputs: Any, study_folder: Any) -> TaskCode:
    """Stand for the signature that a task's code is built with."""
    raise TypeError("only its signature is used")

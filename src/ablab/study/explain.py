"""Says what a key of a study means: type, default, unit, limits, description, and whether it decides the result."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from annotated_types import BaseMetadata
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ablab.contract.checklist import Expected
from ablab.contract.failure import ConfigError
from ablab.contract.kinds import stage_kinds
from ablab.contract.task import StageSpec, TaskSpec
from ablab.study import fields
from ablab.study.addresses import Addresses
from ablab.study.document import ComparisonEntry, ExperimentEntry, MatrixEntry, StudyFile
from ablab.study.editors import json_schema
from ablab.study.problems import listed, nearest, shown
from ablab.study.schema import Notify, References

__all__ = ["UnknownKeyError", "explain", "json_schema", "keys"]

#: Entries of the top-level mappings and lists, by key.
ENTRIES: Mapping[str, type[BaseModel]] = {
    "experiments": ExperimentEntry,
    "matrix": MatrixEntry,
    "comparisons": ComparisonEntry,
    "references": References,
    "notify": Notify,
    "checklist": Expected,
}

#: Stands for a stage kind where a key is about the study, not about a run.
_STUDY = "study"

_NEEDS = "Stages whose runs it reads: [experiment.]stage[@last|@best]; without it, the nearest earlier of each kind."


class UnknownKeyError(ConfigError):
    """A key that no study of the task has; `suggestion` is the nearest that exists."""

    def __init__(self, key: str, suggestion: str | None, valid: list[str]) -> None:
        hint = f"; did you mean {suggestion}?" if suggestion else f"; top-level keys: {listed(valid, limit=30)}"
        super().__init__(f"no key {key!r} in a study of this task{hint}", suggestion=suggestion)
        self.suggestion = suggestion


def explain(key: str, task: TaskSpec) -> str:
    """Return what a key means.

    Args:
        key: a path of the study (seeds, comparisons.criterion, compute.threads), of an experiment (model.layers,
            pipeline.train.steps), of a stage kind (train.optimizer.learning_rate), or any unambiguous end of one.
        task: the task whose sections and stages are meant.

    Raises:
        UnknownKeyError: no such key; names the nearest.
    """
    path = _normal(key)
    for explained in (_of_study(path), _of_experiment(path, task), _of_kind(path, task)):
        if explained is not None:
            return explained
    ends = [known for known in keys(task) if known.endswith("." + path)]
    if len(ends) == 1 or (ends and path.count(".")):
        return explain(ends[0], task)
    if ends:
        return f"{key} stands in several places: {listed(ends)}"
    near = nearest(path, keys(task)) or Addresses(task).nearest(path)
    raise UnknownKeyError(key, near, list(StudyFile.model_fields))


def keys(task: TaskSpec) -> list[str]:
    """Return every key that can be explained, study keys first."""
    found: list[str] = []
    for name in StudyFile.model_fields:
        found.append(name)
        models = (ENTRIES[name],) if name in ENTRIES else fields.models_in(StudyFile.model_fields[name].annotation)
        found += [f"{name}.{path}" for model in models for path in fields.paths(model)]
    found += Addresses(task).all
    kinds = stage_kinds(task)
    stages = Addresses(task).stages
    found += [f"{kind}.{path}" for kind in kinds if kind not in stages for path in fields.paths(kinds[kind].parameters)]
    return list(dict.fromkeys(found))


def _normal(key: str) -> str:
    """Drop list positions, and lead into defaults, experiments and profiles to what they hold."""
    path = re.sub(r"\[\d+\]", "", key.strip())
    parts = path.split(".")
    if parts[0] == "defaults" and len(parts) > 1:
        return ".".join(parts[1:])
    if parts[0] == "profiles" and len(parts) > 2:
        return _normal(".".join(parts[2:]))
    return path


def _of_study(path: str) -> str | None:
    first, _, rest = path.partition(".")
    field = StudyFile.model_fields.get(first)
    if field is None:
        return None
    if not rest:
        inner = (ENTRIES[first],) if first in ENTRIES else fields.models_in(field.annotation)
        return _text(path, field, kind=_STUDY, inner=inner)
    models = (ENTRIES[first],) if first in ENTRIES else fields.models_in(field.annotation)
    found = fields.find(models, rest)
    if found is None and first in ("experiments", "references"):
        found = fields.find(models, rest.partition(".")[2]) if "." in rest else None
    return None if found is None else _text(path, found.field, kind=_STUDY, inner=fields.models_in(found.type))


def _of_experiment(path: str, task: TaskSpec) -> str | None:
    parts = path.split(".")
    if parts[0] == "experiments" and len(parts) > 2:
        path, parts = ".".join(parts[2:]), parts[2:]
    if path in task.sections:
        return _block(path, task.sections[path], f"Section of {task.title}.")
    addresses = Addresses(task)
    if path == "pipeline":
        lines = [
            f"  {name}: {' or '.join(spec.summary or spec.kind for spec in specs)}"
            for name, specs in addresses.stages.items()
        ]
        return "\n".join(
            [f"pipeline\n  Stages of an experiment by name. Those of {task.name}, when nothing is said:", *lines]
        )
    if parts[0] == "pipeline" and len(parts) == 2 and parts[1] in addresses.stages:
        return _stage(path, addresses.stages[parts[1]][0])
    if parts[0] == "pipeline" and len(parts) == 3 and parts[2] in ("kind", "needs"):
        meaning = (
            _NEEDS
            if parts[2] == "needs"
            else f"Stage kind; the stage's name when not given: {listed(stage_kinds(task))}."
        )
        return f"{path}\n  {meaning}"
    found = addresses.find(path)
    if found is None:
        return None
    kind = addresses.stages[parts[1]][0].kind if parts[0] == "pipeline" else None
    return _text(path, found.field, kind=kind, inner=fields.models_in(found.type))


def _of_kind(path: str, task: TaskSpec) -> str | None:
    first, _, rest = path.partition(".")
    spec = stage_kinds(task).get(first)
    if spec is None:
        return None
    if not rest:
        return _stage(path, spec)
    found = fields.find((spec.parameters,), rest)
    return None if found is None else _text(path, found.field, kind=spec.kind, inner=fields.models_in(found.type))


def _stage(path: str, spec: StageSpec) -> str:
    reads = [f"reads sections {listed(spec.sections)}"] if spec.sections else []
    takes = [f"takes runs of {listed(spec.inputs)}"] if spec.inputs else []
    saves = ["makes checkpoints (@last, @best)"] if spec.makes_checkpoints else []
    metrics = [f"yields {listed(spec.metrics)}"] if spec.metrics else []
    what = "; ".join((*reads, *takes, *saves, *metrics))
    return _block(path, spec.parameters, f"Stage: {spec.summary or spec.kind}." + (f"\n  It {what}." if what else ""))


def _block(path: str, model: type[BaseModel], intro: str) -> str:
    described = (model.__doc__ or "").strip().split("\n")[0]
    return "\n".join([path, f"  {intro}", *([f"  {described}"] if described else []), *_fields((model,))])


def _text(path: str, field: FieldInfo, *, kind: str | None, inner: tuple[type[BaseModel], ...]) -> str:
    lines = [path]
    if field.description:
        lines.append(f"  {field.description}")
    lines.append(f"  type: {type_text(field.annotation)}")
    lines.append(f"  default: {_default(field)}")
    unit = fields.extra(field).get("unit")
    if unit:
        lines.append(f"  unit: {unit}")
    limits = list(_limits(field))
    if limits:
        lines.append(f"  limits: {', '.join(limits)}")
    if not inner:
        lines.append(f"  {_keyed(path, field, kind)}")
    return "\n".join([*lines, *_fields(inner)])


def _keyed(path: str, field: FieldInfo, kind: str | None) -> str:
    if path in ("seeds", "experiments.seeds", "matrix.seeds"):
        return "key: of stages that draw from the seed"
    if kind == _STUDY:
        return "key: no; it says nothing about how a run computes"
    if not fields.is_keyed(field):
        return "key: no; changing it never makes a run anew"
    stages = fields.extra(field).get("stages")
    if isinstance(stages, list):
        return f"key: yes, of stages of kind {listed(map(str, stages))}"
    return (
        "key: yes; another value is another run" if kind is None else f"key: yes; another value is another {kind} run"
    )


def _fields(models: tuple[type[BaseModel], ...]) -> list[str]:
    lines = []
    for model in models:
        for name, field in model.model_fields.items():
            said = f" — {field.description}" if field.description else ""
            lines.append(f"  {field.alias or name} ({type_text(field.annotation)}, default {_default(field)}){said}")
    return ["  holds:", *(f"  {line}" for line in lines)] if lines else []


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "none, it is required"
    if field.default_factory is not None:
        made = field.get_default(call_default_factory=True, validated_data={})
        return "its fields' defaults" if isinstance(made, BaseModel) else shown(made)
    if field.default is PydanticUndefined:
        return "none"
    value = field.default
    if isinstance(value, str):
        return value or "empty"
    return str(list(value)) if isinstance(value, tuple) else shown(value)


def _limits(field: FieldInfo) -> Iterator[str]:
    words = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most", "multiple_of": "a multiple of"}
    words |= {"min_length": "at least this many:", "max_length": "at most this many:"}
    for item in field.metadata:
        if isinstance(item, BaseMetadata):
            for name, word in words.items():
                value = getattr(item, name, None)
                if value is not None:
                    yield f"{word} {value}"


def type_text(annotation: Any) -> str:
    """Return a type in the words of a study file: whole number, text, true or false, one of ..., list of ..."""
    import types
    import typing

    names = {
        int: "whole number",
        float: "number",
        bool: "true or false",
        str: "text",
        type(None): "null",
        Any: "anything",
    }
    if annotation in names:
        return names[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(arguments[0])
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_text(part) for part in arguments))
    if origin is tuple and len(arguments) > 1 and arguments[-1] is not ...:
        return f"list of {len(arguments)}: " + ", ".join(map(type_text, arguments))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping to {type_text(arguments[-1])}"
    return f"list of {type_text(arguments[0])}" if arguments else "mapping"

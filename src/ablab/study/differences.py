"""What differs between two experiments once everything is resolved, and what of it a comparison has not declared.

Values are compared as typed, defaults filled in, so that writing a default down is no difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from ablab.study.fields import is_keyed
from ablab.study.schema import Comparison, Experiment, Stage, Study

#: Stands for a value or stage that one of the experiments does not have.
ABSENT = None

Differences = dict[str, tuple[Any, Any]]


def differences(a: Experiment, b: Experiment, *, keyed: bool = True) -> Differences:
    """Return what differs, by study path, as (value in a, value in b); nested blocks down to their fields.

    Args:
        a: an experiment, usually the baseline.
        b: another.
        keyed: only what can change a result; False also lists logging, checkpoint cadence and splits of a batch.
    """
    found: Differences = {}
    theirs = {stage.name: stage for stage in b.stages}
    for stage in a.stages:
        other = theirs.pop(stage.name, None)
        if other is None:
            found[f"pipeline.{stage.name}"] = (stage.kind, ABSENT)
        elif other is not stage:
            _compare_stages(stage, other, (a, b), keyed=keyed, found=found)
    for name, stage in theirs.items():
        found[f"pipeline.{name}"] = (ABSENT, stage.kind)
    return found


def undeclared(study: Study, comparison: Comparison, variant: str, *, keyed: bool = True) -> Differences:
    """Return the differences of a variant from its baseline that neither `factor` nor `also` covers."""
    declared = (*comparison.factor, *comparison.also)
    found = differences(study.experiments[comparison.baseline], study.experiments[variant], keyed=keyed)
    return {path: values for path, values in found.items() if not covers(study, declared, path)}


def covers(study: Study, declared: tuple[str, ...], path: str) -> bool:
    """Tell whether a path is one of the declared, or inside one; `data` also covers `pipeline.train.data`."""
    parts = path.split(".")
    names = [path]
    if len(parts) > 3 and parts[0] == "pipeline" and parts[2] in study.task.sections:
        names.append(".".join(parts[2:]))
    return any(name == prefix or name.startswith(prefix + ".") for prefix in declared for name in names)


def _compare_stages(
    a: Stage, b: Stage, experiments: tuple[Experiment, Experiment], *, keyed: bool, found: Differences
) -> None:
    prefix = f"pipeline.{a.name}"
    if a.kind != b.kind:
        found[f"{prefix}.kind"] = (a.kind, b.kind)
        return
    if a.needs != b.needs and _needs(a) != _needs(b):
        found[f"{prefix}.needs"] = (_needs(a), _needs(b))
    for section in a.sections:
        own = any(_overrides(experiment, a.name, section) for experiment in experiments)
        path = f"{prefix}.{section}" if own else section
        _compare(a.sections[section], b.sections[section], path, a.kind if keyed else None, keyed, found)
    _compare(a.parameters, b.parameters, prefix, a.kind if keyed else None, keyed, found)


def _compare(a: Any, b: Any, path: str, kind: str | None, keyed: bool, found: Differences) -> None:
    """Note the differences of two typed blocks; blocks of different types are compared field by field all the same."""
    if a is b:
        return
    if isinstance(a, Mapping) and isinstance(b, Mapping) and _holds_blocks(a, b):
        for name in dict.fromkeys((*a, *b)):
            _compare(a.get(name, ABSENT), b.get(name, ABSENT), f"{path}.{name}", kind, keyed, found)
        return
    if not (isinstance(a, BaseModel) and isinstance(b, BaseModel)):
        if plain(a) != plain(b) or (type(a) is not type(b) and isinstance(a, BaseModel) != isinstance(b, BaseModel)):
            found[path] = (plain(a), plain(b))
        return
    for name in _names(a, b):
        field = type(a).model_fields.get(name) or type(b).model_fields.get(name)
        if keyed and field is not None and not is_keyed(field, kind):
            continue
        inner = f"{path}.{field.alias or name if field is not None else name}"
        _compare(getattr(a, name, ABSENT), getattr(b, name, ABSENT), inner, kind, keyed, found)


def _holds_blocks(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Tell whether mappings hold blocks by a name of the user's (parts of a model), to be compared one by one."""
    return any(isinstance(value, BaseModel) for value in (*a.values(), *b.values()))


def _names(a: BaseModel, b: BaseModel) -> Iterator[str]:
    yield from type(a).model_fields
    if type(b) is not type(a):
        yield from (name for name in type(b).model_fields if name not in type(a).model_fields)
    own = a.model_extra or {}
    yield from own
    yield from (name for name in b.model_extra or {} if name not in own)


def _needs(stage: Stage) -> list[str]:
    """Return needs in a form in which equal needs are equal, whatever was written."""
    found = []
    for need in stage.needs:
        where = need.stage if need.experiment is None else f"{need.experiment}.{need.stage}"
        found.append(f"{where}@best" if need.checkpoint == "best" else where)
    return sorted(found)


def _overrides(experiment: Experiment, stage: str, section: str) -> bool:
    """Tell whether a stage of an experiment has its own version of a section."""
    pipeline = experiment.config.get("pipeline")
    raw = pipeline.get(stage) if isinstance(pipeline, Mapping) else None
    return isinstance(raw, Mapping) and raw.get(section) is not None


def plain(value: Any) -> Any:
    """Return a typed value as plain data (dictionaries, lists, scalars)."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return value

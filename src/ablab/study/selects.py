"""Checks select stages: one stage needs each, its swept paths exist there, and every value is valid for it.

The plan expands a sweep; `vary` gives it the needing stage with chosen values.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ablab.contract.failure import ConfigError
from ablab.contract.kinds import is_select
from ablab.contract.select import Select
from ablab.study.addresses import Addresses
from ablab.study.merging import Merger, nested
from ablab.study.metric_names import MetricNames
from ablab.study.needs import Declared
from ablab.study.pipeline import EMPTY, Pipelines
from ablab.study.problems import Mark, Problems, listed
from ablab.study.schema import Need, Stage
from ablab.study.yaml12 import Block

#: Combinations of a sweep that are checked together; above, each value is checked alone.
CHECKED = 512


def check_selects(
    name: str, stages: Sequence[Stage], config: Block, mark: Mark, *, pipelines: Pipelines, problems: Problems
) -> None:
    """Note what is wrong with the select stages of the experiment `name`."""
    selects = {stage.name: stage for stage in stages if is_select(stage.spec)}
    if not selects:
        return
    # The pipeline as declared, not as typed: a stage with a wrong parameter needs its select stage all the same.
    placed = {stage.declared.name: stage for stage in pipelines.needs.placed(name)}
    declared = {stage.name: stage for stage in pipelines.declared(config.get("pipeline", EMPTY))}
    for select in selects.values():
        if not isinstance(select.parameters, Select):
            continue
        place = declared[select.name].mark
        users = [user for user, stage in placed.items() if _needs(stage.needs, select.name)]
        if len(users) != 1:
            found = " and ".join(users) or "no stage"
            message = f"exactly one stage needs a select stage, which sweeps its values; {found} needs {select.name!r}"
            problems.add(place, message)
            continue
        user = declared[users[0]]
        metric_mark = declared[select.name].parameters.marks.get("metric", place)
        MetricNames(pipelines.task, [user.spec]).check(select.parameters.metric, metric_mark, problems)
        _check_sweep(declared[select.name], user, config, mark, pipelines, problems)


def needing(stages: Sequence[Stage], name: str) -> list[Stage]:
    """Return the stages of the same experiment that need the stage `name`."""
    return [stage for stage in stages if _needs(stage.needs, name)]


def vary(stage: Stage, values: Mapping[str, Any]) -> Stage:
    """Return a stage with values set by study path (model.layers, pipeline.train.optimizer.learning_rate).

    Raises:
        ConfigError: a path that is not of this stage, or a value that does not fit.
    """
    changes: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        target, inner = _target(stage.name, stage.spec.sections, path)
        if target is None or not inner:
            reads = listed(stage.spec.sections)
            raise ConfigError(f"{path} names no value of the stage {stage.name!r}, which reads {reads}")
        _put(changes.setdefault(target, {}), inner, value)
    sections = {
        name: _changed(model, changes[name], name) if name in changes else model
        for name, model in stage.sections.items()
    }
    parameters = stage.parameters
    if "" in changes:
        parameters = _changed(parameters, changes[""], f"pipeline.{stage.name}")
    return dataclasses.replace(stage, sections=sections, parameters=parameters)


def _needs(needs: Sequence[Need], name: str) -> bool:
    return any(need.experiment is None and need.stage == name for need in needs)


def _check_sweep(
    select: Declared, user: Declared, config: Block, mark: Mark, pipelines: Pipelines, problems: Problems
) -> None:
    sweep = select.parameters["sweep"]
    before = len(problems)
    addresses = Addresses(pipelines.task, {user.name: [user.spec]})
    for path in sweep:
        target, inner = _target(user.name, user.spec.sections, path)
        unread = target and user.spec.reads is not None and not _reads(user, inner, pipelines)
        if target is None or not inner or addresses.find(path) is None or unread:
            near = addresses.nearest(path)
            problems.add(sweep.marks[path], f"the stage {user.name!r}, which is swept, has no path {path!r}", near)
    if len(problems) > before:
        return
    merger = Merger()
    choices = [[(path, index) for index in range(len(values))] for path, values in sweep.items()]
    combinations: Any = itertools.product(*choices)
    if math.prod(map(len, choices)) > CHECKED:
        combinations = ((choice,) for choice in itertools.chain(*choices))
    for combination in combinations:
        _check_combination(combination, sweep, user, config, mark, pipelines, merger)


def _reads(user: Declared, inner: Sequence[str], pipelines: Pipelines) -> bool:
    """Tell whether a stage takes a value of an open section."""
    parameters = pipelines.typed_parameters(user)
    return user.spec.reads is None or parameters is None or inner[0] in user.spec.reads(parameters)


def _check_combination(
    combination: Sequence[tuple[str, int]],
    sweep: Block,
    user: Declared,
    config: Block,
    mark: Mark,
    pipelines: Pipelines,
    merger: Merger,
) -> None:
    """Type the swept stage as one trial would have it; what does not fit is noted where the value stands."""
    changed = user
    for path, index in combination:
        target, inner = _target(user.name, user.spec.sections, path)
        over = nested(inner, sweep[path][index], sweep[path].marks[index])
        if target:
            over = nested([target, *inner], sweep[path][index], sweep[path].marks[index])
            changed = dataclasses.replace(changed, overrides=merger.merge(changed.overrides, over))
        else:
            changed = dataclasses.replace(changed, parameters=merger.merge(changed.parameters, over))
    pipelines.type_stage(changed, config, mark)


def _target(stage: str, sections: Sequence[str], path: str) -> tuple[str | None, list[str]]:
    """Return what a path changes of a stage: a section or "" for its parameters (None: nothing), and the rest."""
    parts = path.split(".")
    if parts[:2] == ["pipeline", stage]:
        parts = parts[2:]
        if not parts or parts[0] not in sections:
            return "", parts
    if parts[0] in sections:
        return parts[0], parts[1:]
    return None, parts


def _put(changes: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        changes = changes.setdefault(key, {})
    changes[keys[-1]] = value


def _changed(model: Any, changes: Mapping[str, Any], path: str) -> Any:
    assert isinstance(model, BaseModel)
    raw = _merged(model.model_dump(exclude_unset=True, by_alias=True), changes)
    try:
        return type(model).model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (path, *first["loc"])))
        raise ConfigError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged

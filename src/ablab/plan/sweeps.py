"""What a select stage means for the plan: its trials, and what a choice changes.

A trial is the needing stage with one combination of values and without the select stage among its needs: an ordinary
stage with an ordinary key, shared with any equal run. Which runs a trial reads is `ablab.plan.programs`'s; setting
values is `ablab.study.selects`'s; comparing trials is the worker's.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ablab.contract.failure import ConfigError
from ablab.contract.select import Select
from ablab.plan.keys import canonical
from ablab.study.schema import Experiment, Stage
from ablab.study.selects import needing

Trial = TypeVar("Trial")


@dataclass(slots=True, kw_only=True)
class Sweep(Generic[Trial]):
    """The trials of a select stage, (values, trial) each, and the seeds they run with."""

    trials: list[tuple[dict[str, Any], Trial]]
    seeds: tuple[int, ...]


def parameters_of(select: Stage) -> Select:
    """Return the parameters of a select stage."""
    assert isinstance(select.parameters, Select)
    return select.parameters


def combinations(select: Select) -> list[dict[str, Any]]:
    """Return every combination of values, the last path varying fastest."""
    return [dict(zip(select.sweep, values, strict=True)) for values in itertools.product(*select.sweep.values())]


def reference_of(values: Mapping[str, Any]) -> str:
    """Return the reference of a trial among the inputs of its select run: its values as canonical JSON."""
    return canonical(dict(values))


def swept_stage(experiment: Experiment, select: Stage) -> Stage:
    """Return the stage that needs a select stage and is swept by it. Raises ConfigError when there is none."""
    found = needing(experiment.stages, select.name)
    if not found:
        place = f"experiments.{experiment.name}.pipeline.{select.name}"
        raise ConfigError(f"{place}: no stage needs it; add {select.name} to the needs of the stage it sweeps")
    return found[0]


def inherited(stage: Stage, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an input's chosen values holds for a stage too: the sections that both read."""
    return {path: value for path, value in chosen.items() if path.partition(".")[0] in stage.spec.sections}


def without_needs(stage: Stage, positions: Collection[int]) -> Stage:
    """Return the stage without some of its needs, given by position."""
    needs = tuple(need for position, need in enumerate(stage.needs) if position not in positions)
    return dataclasses.replace(stage, needs=needs)

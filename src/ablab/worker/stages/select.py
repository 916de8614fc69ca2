"""The select stage: compares the trials of a sweep and chooses the values with the best mean."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from typing import Any

from ablab.contract.context import Context
from ablab.contract.failure import ConfigError, DataError
from ablab.contract.order import Input, Order
from ablab.contract.result import Evaluation, Outcome, Result, Table
from ablab.contract.select import Select
from ablab.store.layout import RunFolder


@dataclass(kw_only=True)
class Trial:
    """One combination of values and what it reached, a value a seed."""

    values: dict[str, Any]
    scores: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.scores)


def run(order: Order, context: Context) -> Outcome:
    """Choose the combination with the best mean of the metric; of equal ones, the first in the sweep's order."""
    context.event("start", step=0)
    parameters = Select.model_validate(order.parameters)
    trials = _trials(order, parameters)
    sign = 1.0 if parameters.mode == "min" else -1.0
    best = min(trials, key=lambda trial: sign * trial.mean)
    paths = tuple(parameters.sweep)
    rows = tuple((*(t.values[p] for p in paths), t.mean, len(t.scores), t is best) for t in trials)
    table = Table(name="trials", columns=(*paths, parameters.metric, "seeds", "chosen"), rows=rows)
    tried = [{"values": t.values, "mean": t.mean, "scores": t.scores} for t in trials]
    return Outcome(
        metrics={parameters.metric: best.mean},
        facts={"chosen": best.values, "tried": tried},
        evaluations=(Evaluation(name="sweep", tables=(table,)),),
    )


def _trials(order: Order, parameters: Select) -> list[Trial]:
    trials: dict[str, Trial] = {}
    for given in order.inputs:
        result = RunFolder(given.path).read_result()
        if result is None:
            raise DataError(f"trial {given.reference} ({given.path}) is not finished", file=given.path)
        values = _values(given, parameters)
        trial = trials.setdefault(json.dumps(values, sort_keys=True), Trial(values=values))
        trial.scores.append(_score(result, parameters, given))
    if not trials:
        raise ConfigError(f"stage {order.stage} of {order.experiment} has no trials to compare")
    return list(trials.values())


def _score(result: Result, parameters: Select, given: Input) -> float:
    if parameters.at == "best" and parameters.metric in result.best:
        return result.best[parameters.metric].value
    if parameters.metric not in result.metrics:
        known = ", ".join(sorted(result.metrics)) or "none"
        raise ConfigError(f"trial {given.reference} has no metric {parameters.metric!r}; it has: {known}")
    return result.metrics[parameters.metric]


def _values(given: Input, parameters: Select) -> dict[str, Any]:
    """Return what was swept by path: the plan writes it as the trial's reference, be it whose parameter it may.

    A path need not lead to the trial's own parameters: a sweep may set those of a stage that the trial reads.
    """
    try:
        values = json.loads(given.reference)
    except ValueError:
        values = None
    if not isinstance(values, dict) or values.keys() != parameters.sweep.keys():
        raise ConfigError(
            f"trial {given.reference} ({given.path}): expected its values of {', '.join(parameters.sweep)} as JSON"
        )
    return {path: values[path] for path in parameters.sweep}

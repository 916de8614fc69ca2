"""What the store knows of time and disk: finished runs and probes on this kind of device.

A bounded number of results is read, however large the plan: the runs of the plan first, then the newest of the store.
How they become an estimate is `ablab.plan.estimate`'s.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ablab.contract.failure import AblabError
from ablab.contract.order import Order
from ablab.contract.result import Result
from ablab.plan.devices import Devices
from ablab.plan.graph import Run
from ablab.plan.keys import canonical
from ablab.store.layout import RunFolder, Store
from ablab.store.retention import folder_bytes
from ablab.study.schema import Stage

#: Results read of one configuration, and in all.
PER_CONFIGURATION, IN_ALL = 3, 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How long a stage goes on: steps, and validations weighted by their batches; None where nobody knows."""

    steps: float | None
    validations: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one finished run took.

    Args:
        seconds: wall clock without start-up and validation.
        start: seconds of start-up.
        validation: seconds of all validations.
        length: of the run.
        bytes: disk it left.
        facts: facts of its result.
    """

    seconds: float
    start: float
    validation: float
    length: Length
    bytes: int
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Wall clock."""
        return self.seconds + self.start + self.validation


def cost_of(stage: Stage) -> str:
    """Return what makes a step of a stage cost what it costs; equal for stages whose steps take the same time."""
    sections = {name: stage.sections[name].model_dump(mode="json") for name in stage.spec.sections}
    batch = stage.spec.effective_batch
    size = batch(stage.sections, stage.parameters) if batch is not None else None
    return _cost(stage.kind, sections, size, getattr(stage.parameters, "precision", None))


def _cost_of_order(order: Order) -> str:
    return _cost(order.kind, order.sections, order.parameters.get("batch"), order.parameters.get("precision"))


def _cost(kind: str, sections: Mapping[str, Any], batch: Any, precision: Any) -> str:
    return canonical([kind, sections, batch, precision])


def length_of(stage: Stage, *, samples: float | None = None) -> Length:
    """Return the length of a stage; epochs become steps where the number of training samples is known."""
    spec, parameters = stage.spec, stage.parameters
    steps = spec.steps(stage.sections, parameters) if spec.steps is not None else None
    epochs = getattr(parameters, "epochs", None)
    if steps is None and epochs and samples and spec.effective_batch is not None:
        size = spec.effective_batch(stage.sections, parameters)
        steps = math.ceil(epochs * samples / size) if size else None
    schedule = getattr(parameters, "validation", None)
    return _length(steps, getattr(schedule, "every", None), getattr(schedule, "batches", None))


def _length(steps: float | None, every: int | None, batches: int | None) -> Length:
    count = 1.0
    if steps and every:
        count = max(1.0, math.ceil(steps / every))
    return Length(steps=steps, validations=count * (batches or 1))


class History:
    """Samples of finished runs on this kind of device, by configuration, by cost of a step, and by kind.

    Args:
        store: the store.
        runs: runs of the plan.
        here: the devices of this machine.
    """

    def __init__(self, store: Store, runs: Iterable[Run], here: Devices) -> None:
        self._store = store
        self._here = here
        self._left = IN_ALL
        self._costs: dict[int, str] = {}
        self._by_config: dict[str, list[Sample]] = {}
        self._by_cost: dict[str, list[Sample]] = {}
        self._by_kind: dict[str, list[Sample]] = {}
        self._seen: set[str] = set()
        done, wanted = _split(runs)
        for run in _spread(done):
            self._add_run(run)
        self._elsewhere(wanted)

    def __bool__(self) -> bool:
        return bool(self._by_cost)

    def of_configuration(self, run: Run) -> list[Sample]:
        """Return what runs of the same configuration took."""
        return self._by_config.get(run.config, [])

    def of_cost(self, run: Run) -> list[Sample]:
        """Return what runs took whose steps cost the same."""
        return self._by_cost.get(self._cost(run.stage), []) if self._by_cost else []

    def of_kind(self, run: Run) -> list[Sample]:
        """Return what runs of the same kind took in this plan, whatever their model."""
        return self._by_kind.get(run.stage.kind, [])

    def _cost(self, stage: Stage) -> str:
        known = self._costs.get(id(stage))
        if known is None:
            known = self._costs[id(stage)] = cost_of(stage)
        return known

    def _add_run(self, run: Run) -> None:
        """Read the result of a finished run of the plan."""
        known = self._by_config.setdefault(run.config, [])
        if self._left <= 0 or len(known) >= PER_CONFIGURATION:
            return
        self._seen.add(run.key)
        self._left -= 1
        folder = self._store.run(run.name)
        result = _readable(folder)
        if result is None or result.numerics.device_name != self._here.of(run.stage):
            return
        length = length_of(run.stage, samples=result.facts.get("samples.train"))
        sample = _sample(folder, result, length)
        known.append(sample)
        self._by_cost.setdefault(self._cost(run.stage), []).append(sample)
        self._by_kind.setdefault(run.stage.kind, []).append(sample)

    def _elsewhere(self, wanted: Mapping[str, Stage]) -> None:
        """Read the newest finished runs of the store for the kinds that the plan's own runs say nothing about."""
        missing = {kind: stage for kind, stage in wanted.items() if kind not in self._by_kind}
        if not missing:
            return
        for folder in _newest(self._store, self._left):
            if folder.key in self._seen:
                continue
            order = _order(folder)
            if order is None or order.kind not in missing:
                continue
            result = _readable(folder)
            if result is None or result.numerics.device_name != self._here.of(missing[order.kind]):
                continue
            schedule = order.parameters.get("validation") or {}
            steps = result.facts.get("steps.done") or order.parameters.get("steps")
            length = _length(steps, schedule.get("every"), schedule.get("batches"))
            self._by_cost.setdefault(_cost_of_order(order), []).append(_sample(folder, result, length))


def _split(runs: Iterable[Run]) -> tuple[list[Run], dict[str, Stage]]:
    """Return the finished runs, and a stage of each kind of which something is left."""
    done, wanted = [], {}
    for run in runs:
        if run.status == "done":
            done.append(run)
        elif run.stage.kind not in wanted:
            wanted[run.stage.kind] = run.stage
    return (done, wanted) if wanted else ([], {})


def _spread(runs: list[Run]) -> Iterator[Run]:
    """Yield runs so that each configuration comes once before any comes twice."""
    rounds: dict[str, int] = {}
    ordered = []
    for place, run in enumerate(runs):
        rounds[run.config] = rounds.get(run.config, 0) + 1
        if rounds[run.config] <= PER_CONFIGURATION:
            ordered.append((rounds[run.config], place))
    return (runs[place] for _, place in sorted(ordered)[:IN_ALL])


def _newest(store: Store, count: int) -> list[RunFolder]:
    """Return the finished runs of the store that finished last."""
    found = []
    for folder in store.runs():
        try:
            found.append((os.stat(f"{folder.path}/result.json").st_mtime, folder))  # noqa: PTH116 - thousands of them
        except FileNotFoundError:
            continue
    return [folder for _, folder in sorted(found, key=lambda pair: -pair[0])[: max(0, count)]]


def _sample(folder: RunFolder, result: Result, length: Length) -> Sample:
    start, validation = result.time.get("start-up", 0.0), result.time.get("validation", 0.0)
    if length.steps is not None and result.facts.get("steps.done"):
        length = Length(steps=float(result.facts["steps.done"]), validations=length.validations)
    return Sample(
        seconds=max(0.0, sum(result.time.values()) - start - validation),
        start=start,
        validation=validation,
        length=length,
        bytes=folder_bytes(folder.path),
        facts=result.facts,
    )


def _readable(folder: RunFolder) -> Result | None:
    """Return a result; one that is damaged says nothing about time."""
    try:
        return folder.read_result()
    except AblabError:
        return None


def _order(folder: RunFolder) -> Order | None:
    try:
        return folder.read_order()
    except AblabError:
        return None

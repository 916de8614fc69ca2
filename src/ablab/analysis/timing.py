"""Where the time of a run went, step statistics, and whether timings may be compared at all.

Every second of a run has a name and they sum to its wall clock; a step took what it took on the machine as it was, so
runs that shared a machine with others are marked and a speed between marked and unmarked runs is contention, not
speed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ablab.analysis.results import Results, RunRecord
from ablab.contract.result import TIMES
from ablab.store.spans import overlapping

#: Epochs from which on an epoch is told: a run over half of the data says what all of it takes.
_ENOUGH = 0.5
#: Share of the wall clock that may stay without a name before an account counts as incomplete.
TOLERANCE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The named seconds of one run.

    Args:
        seconds: by name, in the order of `ablab.contract.result.TIMES`, names of a task's own last.
        wall: seconds of all attempts, from the start of each worker (its start-up comes before its first event) to
            its last sign of life; the sum of names where unknown.
    """

    key: str
    seconds: Mapping[str, float]
    wall: float

    @property
    def named(self) -> float:
        """Sum of the named seconds."""
        return sum(self.seconds.values())

    @property
    def unnamed(self) -> float:
        """Wall-clock seconds without a name; negative when names overlap."""
        return self.wall - self.named

    @property
    def complete(self) -> bool:
        """Whether the names account for the wall clock within `TOLERANCE` or one second."""
        return abs(self.unnamed) <= max(1.0, TOLERANCE * self.wall)

    @property
    def shares(self) -> dict[str, float]:
        """Share of each name in the wall clock (0 to 1)."""
        whole = self.wall or 1.0
        return {name: seconds / whole for name, seconds in self.seconds.items()}


def account(record: RunRecord) -> Account | None:
    """Return where a run's time went; None before it has any."""
    if not record.time:
        return None
    names = [*(name for name in TIMES if name in record.time), *(n for n in record.time if n not in TIMES)]
    seconds = {name: record.time[name] for name in names}
    heard = record.wall
    wall = sum(seconds.values()) if heard is None else heard + seconds.get("start-up", 0.0)
    return Account(key=record.key, seconds=seconds, wall=wall)


def mark_shared(records: Mapping[str, RunRecord]) -> dict[str, RunRecord]:
    """Return the records with `shared` and `shared_with` filled from their spans; a mark of the worker stays."""
    found = overlapping({key: record.spans for key, record in records.items()})
    return {
        key: replace(record, shared=record.shared or key in found, shared_with=found.get(key, ()))
        for key, record in records.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Step time of one stage of one arm and seed.

    Args:
        median, p95: seconds a step, without the first `excluded` steps.
        per_second: samples, tokens or steps a second as the stage counts them.
        shared: other runs used the machine meanwhile: the figure is not the arm's own speed.
    """

    experiment: str
    seed: int
    stage: str
    median: float | None
    p95: float | None
    per_second: float | None
    excluded: int
    shared: bool
    shared_with: tuple[str, ...]
    device: str


def speeds(results: Results, *, stage: str | None = None) -> list[Speed]:
    """Return the step statistics of every finished run with steps, one row an arm and seed."""
    rows = []
    for arm in results.arms:
        for name, key in arm.runs.items():
            record = results.runs.get(key)
            if record is None or not record.step_times or stage not in (None, name):
                continue
            times = record.step_times
            rows.append(
                Speed(
                    experiment=arm.experiment,
                    seed=arm.seed,
                    stage=name,
                    median=times.get("median"),
                    p95=times.get("p95"),
                    per_second=times.get("per_second"),
                    excluded=int(times.get("excluded", 0)),
                    shared=record.shared,
                    shared_with=record.shared_with,
                    device=record.device or (record.numerics.device_name if record.numerics is not None else ""),
                )
            )
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch of a training run: how long, how fast, how large, how it ended.

    Args:
        samples, steps: of one epoch; of a run that failed, no samples and the steps it was to make.
        net: seconds of an epoch without waiting for data and without warm-up steps.
        gross: seconds of an epoch with both: data, forward and backward, and optimiser of all steps.
        epochs: how many the run saw.
        whole: wall clock of the run, start-up, validation and checkpoints counted.
        per_second: samples a second at the net pace.
        excluded: warm-up steps that `net` leaves out.
        rss, gpu: peak bytes.
        ended: 0 of a run that is done, the kind of its failure otherwise.
    """

    experiment: str
    seed: int
    stage: str
    samples: int | None
    steps: int
    epochs: float | None
    net: float | None
    gross: float | None
    whole: float
    per_second: float | None
    excluded: int
    rss: int | None
    gpu: int | None
    ended: str
    shared: bool


def epochs(results: Results) -> list[Epoch]:
    """Return an epoch of every training run that saw at least half of its data; a run that arms share counts once.

    Beside them stand the training runs that failed: how far they came and by what they ended.
    """
    rows = []
    told: set[str] = set()
    for arm in results.arms:
        for name, key in arm.runs.items():
            record = results.runs.get(key)
            if record is None or key in told:
                continue
            told.add(key)
            row = _epoch(arm.experiment, arm.seed, name, record) or _failed(arm.experiment, arm.seed, name, record)
            if row is not None:
                rows.append(row)
    return rows if any(row.samples for row in rows) else []


def _failed(experiment: str, seed: int, stage: str, record: RunRecord) -> Epoch | None:
    """Return the row of a training run that ended by a failure."""
    if record.status != "failed" or record.steps_total is None:
        return None
    return Epoch(
        experiment=experiment,
        seed=seed,
        stage=stage,
        samples=None,
        steps=record.steps_total,
        epochs=None,
        net=None,
        gross=None,
        whole=record.wall or 0.0,
        per_second=None,
        excluded=0,
        rss=record.peak.get("rss"),
        gpu=record.peak.get("gpu") or None,
        ended=record.failure or record.status,
        shared=record.shared,
    )


def _epoch(experiment: str, seed: int, stage: str, record: RunRecord) -> Epoch | None:
    samples, steps = record.facts.get("samples.train"), record.facts.get("steps.done")
    seen = record.facts.get("samples.seen")
    if not samples or not steps or not seen or seen < _ENOUGH * samples:
        return None
    batch, count = seen / steps, math.ceil(samples * steps / seen)
    times, told = record.step_times, account(record)
    mean, waited = times.get("mean"), times.get("waited")
    pace = mean - waited if mean is not None and waited is not None else None
    spent = sum(record.time.get(part, 0.0) for part in ("data", "forward-backward", "optimizer"))
    return Epoch(
        experiment=experiment,
        seed=seed,
        stage=stage,
        samples=int(samples),
        steps=count,
        epochs=seen / samples,
        net=None if pace is None else pace * count,
        gross=spent * count / steps if spent else None,
        whole=told.wall if told is not None else 0.0,
        per_second=batch / pace if pace else None,
        excluded=int(times.get("excluded", 0)),
        rss=record.peak.get("rss"),
        gpu=record.peak.get("gpu") or None,
        ended="0" if record.done else record.failure or record.status,
        shared=record.shared,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedRatio:
    """Median step time of a variant over its baseline's, same seed and stage; below 1 is faster.

    `comparable` is False where either run shared its machine or the devices differ, and `reason` says so.
    """

    variant: str
    seed: int
    stage: str
    ratio: float
    comparable: bool
    reason: str


def speed_ratios(results: Results, baseline: str, variants: tuple[str, ...]) -> list[SpeedRatio]:
    """Return the step-time ratio of every variant and seed to the baseline of the same seed."""
    rows = {(row.experiment, row.seed, row.stage): row for row in speeds(results) if row.median}
    found = []
    for (experiment, seed, stage), row in rows.items():
        base = rows.get((baseline, seed, stage))
        if experiment not in variants or base is None or not base.median or not row.median:
            continue
        reason = ""
        if row.shared or base.shared:
            sharing = [each.experiment for each in (base, row) if each.shared]
            reason = f"{' and '.join(sharing)} shared the machine with other runs: this is contention, not speed"
        elif row.device != base.device:
            reason = f"measured on different devices ({base.device} and {row.device})"
        found.append(
            SpeedRatio(
                variant=experiment,
                seed=seed,
                stage=stage,
                ratio=row.median / base.median,
                comparable=not reason,
                reason=reason,
            )
        )
    return found

"""The results of a study as data: runs, and for every arm and seed the value of every metric.

`collect` fills these from a store; a test or a notebook may build them by hand. Nothing here reads files or judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from ablab.contract.order import Numerics
from ablab.contract.result import Best
from ablab.store.spans import Span
from ablab.study.schema import Study

At = Literal["last", "best"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One metric of one arm and seed.

    Args:
        last: value at the end of the stage (or so far, when partial).
        step: step of the last value, where known.
        best: best value seen in validation and its step; None where the metric was seen once.
        stage: stage that yields it; the last one of the pipeline that does.
        key: run it comes from.
        partial: that run, or a later stage that will yield the metric, is not complete.
        looks: how often it was seen during the run; the best of many looks is biased.
    """

    metric: str
    last: float | None
    step: int | None = None
    best: float | None = None
    best_step: int | None = None
    stage: str = ""
    key: str = ""
    partial: bool = False
    looks: int = 1

    def at(self, which: At) -> float | None:
        """Return the last value, or the best (the last where there is no other)."""
        return self.best if which == "best" and self.best is not None else self.last


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Values of one name over the steps of a run; `thinned` when points were left out (extremes are kept)."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    thinned: bool = False

    def at_step(self, step: int) -> float | None:
        """Return the value at exactly this step."""
        return dict(zip(self.steps, self.values, strict=True)).get(step)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What the store knows about one run of the plan.

    `checkpoints` are the events of those that were written (step, bytes, tags); `utilisation` is the mean of the GPU's
    (0 to 1), None where nobody measured it.
    """

    key: str
    name: str
    stage: str
    kind: str
    seed: int | None
    users: tuple[tuple[str, int], ...]
    status: str
    failure: str | None = None
    message: str = ""
    attempts: int = 0
    started: float | None = None
    finished: float | None = None
    step: int | None = None
    steps_total: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    looks: Mapping[str, int] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    time: Mapping[str, float] = field(default_factory=dict)
    step_times: Mapping[str, float] = field(default_factory=dict)
    peak: Mapping[str, int] = field(default_factory=dict)
    numerics: Numerics | None = None
    issues: tuple[Mapping[str, Any], ...] = ()
    spans: tuple[Span, ...] = ()
    device: str = ""
    shared: bool = False
    shared_with: tuple[str, ...] = ()
    evaluations: tuple[str, ...] = ()
    artifacts: Mapping[str, int] = field(default_factory=dict)
    estimate: float | None = None
    checkpoints: tuple[Mapping[str, Any], ...] = ()
    utilisation: float | None = None

    @property
    def done(self) -> bool:
        """Whether the run is complete."""
        return self.status == "done"

    @property
    def wall(self) -> float | None:
        """Seconds of all attempts; None before the first."""
        return sum(span.end - span.start for span in self.spans) if self.spans else None


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm at one seed: its runs by stage name and its metrics.

    Args:
        status: done when every stage is; failed, running, ... by the stage that matters most; planned for arms that
            are shown and never started.
        seeded: metrics whose value depends on the seed; a metric missing here is the same number at every seed.
        failure, message: of the stage that failed, if one did.
    """

    experiment: str
    seed: int
    status: str
    runs: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)
    seeded: frozenset[str] = frozenset()
    failure: str | None = None
    message: str = ""

    @property
    def last(self) -> dict[str, float]:
        """Last value by metric."""
        return {name: value.last for name, value in self.values.items() if value.last is not None}

    @property
    def best(self) -> dict[str, Best]:
        """Best value and its step, by metric seen more than once."""
        return {
            name: Best(value=value.best, step=value.best_step or 0)
            for name, value in self.values.items()
            if value.best is not None
        }

    @property
    def partial(self) -> bool:
        """Whether any stage is still to be done."""
        return self.status != "done"


@dataclass(frozen=True, kw_only=True)
class Results:
    """All that is known about a study so far: one `Arm` for every experiment and seed, and the runs by key."""

    study: Study
    arms: tuple[Arm, ...]
    runs: Mapping[str, RunRecord] = field(default_factory=dict)

    @cached_property
    def _by_name(self) -> dict[tuple[str, int], Arm]:
        return {(arm.experiment, arm.seed): arm for arm in self.arms}

    def arm(self, experiment: str, seed: int) -> Arm | None:
        """Return one arm at one seed; None when the study has no such pair."""
        return self._by_name.get((experiment, seed))

    def value(self, experiment: str, seed: int, metric: str) -> Value | None:
        """Return a metric of one arm and seed, partial or not; None when it has none yet."""
        arm = self.arm(experiment, seed)
        return None if arm is None else arm.values.get(metric)

    def run(self, experiment: str, seed: int, stage: str) -> RunRecord | None:
        """Return the run that did (or does) a stage for one arm and seed."""
        arm = self.arm(experiment, seed)
        key = None if arm is None else arm.runs.get(stage)
        return None if key is None else self.runs.get(key)

    def seeds(self, experiment: str) -> tuple[int, ...]:
        """Return the seeds the study asks of an arm, in its order."""
        return self.study.experiments[experiment].seeds or self.study.seeds

    def values(self, experiment: str, metric: str, at: At = "last") -> dict[int, float]:
        """Return complete values of a metric by seed; partial ones are left out."""
        found: dict[int, float] = {}
        for seed in self.seeds(experiment):
            value = self.value(experiment, seed, metric)
            number = None if value is None or value.partial else value.at(at)
            if number is not None:
                found[seed] = number
        return found

    def metrics(self) -> tuple[str, ...]:
        """Return every metric any arm has, in first-seen order."""
        return tuple(dict.fromkeys(name for arm in self.arms for name in arm.values))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one flat row a metric of every arm and seed, for tables and data frames."""
        for arm in self.arms:
            for value in arm.values.values():
                yield {
                    "experiment": arm.experiment,
                    "seed": arm.seed,
                    "status": arm.status,
                    "metric": value.metric,
                    "last": value.last,
                    "step": value.step,
                    "best": value.best,
                    "best_step": value.best_step,
                    "partial": value.partial,
                    "stage": value.stage,
                    "key": value.key,
                }

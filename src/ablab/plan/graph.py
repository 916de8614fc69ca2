"""The plan as data: runs, their inputs, and their order. `ablab.plan.planning.make_plan` builds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from ablab.study.schema import Stage, Study

RunStatus = Literal["done", "running", "stopped", "failed", "waiting", "paused", "pending", "planned", "unresolved"]

#: Shared by the runs that no sweep concerns; plans hold 10^5 runs.
NOTHING_CHOSEN: Mapping[str, object] = MappingProxyType({})


@dataclass(slots=True)
class RunInput:
    """A run that another run reads."""

    key: str
    reference: str
    checkpoint: Literal["last", "best"] = "last"


@dataclass(slots=True)
class Run:
    """One stage for one seed (or for all, where nothing is drawn from the seed), everything resolved.

    Args:
        key: hash of what determines the result (hex); provisional while `late` names undecided select stages.
        users: (experiment, seed) pairs that use the run; more than one where arms share it.
        estimate: seconds it is expected to take, and where the figure comes from (`estimate_source`).
        bytes: disk it is expected to leave.
        unresolved: hub names whose revision is unknown; such a run never starts.
        late: keys of select runs whose choice this run waits for.
        chosen: what select runs chose for it, by path.
        config: digest of the configuration alone, equal for runs that differ in seed and inputs only.
        folder: name of its folder where the store has one; a run that another stage name made first keeps that name.
        remaining: seconds a running run says it needs still.
        again: why a finished run is work to do: what waits for its weights would not find them.
    """

    key: str
    stage: Stage
    seed: int | None
    users: list[tuple[str, int]]
    inputs: list[RunInput] = field(default_factory=list)
    priority: float = 0.0
    status: RunStatus = "pending"
    unresolved: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    chosen: Mapping[str, object] = field(default_factory=lambda: NOTHING_CHOSEN)
    config: str = ""
    estimate: float | None = None
    estimate_source: str = ""
    bytes: int | None = None
    folder: str = ""
    remaining: float | None = None
    again: str = ""

    @property
    def finished(self) -> bool:
        """Whether the run has its result, be its weights there or not."""
        return self.status == "done" or bool(self.again)

    @property
    def name(self) -> str:
        """Folder name of the run: `<stage>-<key>`."""
        return self.folder or f"{self.stage.name}-{self.key}"

    @property
    def experiment(self) -> str:
        """First experiment that uses the run."""
        return self.users[0][0]


@dataclass(frozen=True, kw_only=True)
class GateState:
    """Where a gate stands.

    Args:
        experiment: whose gate it is.
        status: open (there is nothing to reach), waiting (its runs are not done), passed, or held (it was missed).
        metric, within: as the study says.
        expected: the number to come near; None where there is none.
        found: mean over the seeds; None where it is not known.
        keys: runs of the experiment; the rest waits for them.
        held: runs that wait, by key.
    """

    experiment: str
    status: Literal["open", "waiting", "passed", "held"]
    metric: str
    within: float
    expected: float | None = None
    found: float | None = None
    keys: tuple[str, ...] = ()
    held: frozenset[str] = frozenset()

    @property
    def text(self) -> str:
        """Return what was found and what was expected."""
        if self.expected is None:
            return f"no reference for {self.metric} in this profile, so it holds nothing"
        wanted = f"{self.expected:g} within {100 * self.within:g} %"
        if self.status == "waiting":
            return f"the rest waits until {self.metric} is known; expected {wanted}"
        if self.found is None:
            return f"its runs are done and have no {self.metric}; expected {wanted}"
        return f"{self.metric} is {self.found:.6g}, expected {wanted}"


@dataclass(slots=True, kw_only=True)
class Plan:
    """All runs of a study in topological order, seed-major, with a forecast.

    Args:
        runs: by key, in the order they should start.
        by_user: key by (experiment, seed, stage).
        critical_path: keys of the longest chain of runs that are left, and its seconds.
        seconds_left: wall clock until all is done on `slots`; runs of unknown length count as nothing.
        seconds_without_sharing: the same if every experiment ran alone.
        device_seconds: seconds of one device that what is left takes, whatever runs side by side.
        device_seconds_without_sharing: the same if every experiment ran alone.
        bytes_left: disk that what is left will take, as far as known.
        slots: runs side by side that the forecast counts with; None without one.
        unknown: runs left whose length nobody knows.
        gates: experiments that hold the rest back until they come near their references.
    """

    study: Study
    runs: dict[str, Run]
    by_user: Mapping[tuple[str, int, str], str] = field(default_factory=dict)
    critical_path: tuple[str, ...] = ()
    critical_seconds: float | None = None
    seconds_left: float | None = None
    seconds_without_sharing: float | None = None
    device_seconds: float | None = None
    device_seconds_without_sharing: float | None = None
    bytes_left: int | None = None
    slots: int | None = None
    unknown: int = 0
    gates: tuple[GateState, ...] = ()

    def run_of(self, experiment: str, seed: int, stage: str) -> Run | None:
        """Return the run that does `stage` for one experiment and seed; None when the plan has none."""
        key = self.by_user.get((experiment, seed, stage))
        return None if key is None else self.runs[key]

"""The plan as data: runs, their inputs, and their order. `ablab.plan.planning.make_plan` builds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ablab.study.schema import Stage, Study

RunStatus = Literal["done", "running", "stopped", "failed", "waiting", "paused", "pending", "planned", "unresolved"]


@dataclass(slots=True, kw_only=True)
class RunInput:
    """A run that another run reads."""

    key: str
    reference: str
    checkpoint: Literal["last", "best"] = "last"


@dataclass(slots=True, kw_only=True)
class Run:
    """One stage for one seed (or for all, where nothing is drawn from the seed), everything resolved.

    Args:
        key: hash of what determines the result (hex); provisional while `late` names undecided select stages.
        users: (experiment, seed) pairs that use the run; more than one where arms share it.
        estimate: seconds it is expected to take, and where the figure comes from (`estimate_source`).
        bytes: disk it is expected to leave.
        unresolved: hub names whose revision is unknown; such a run never starts.
        late: keys of select runs whose choice this run waits for.
    """

    key: str
    stage: Stage
    seed: int | None
    users: list[tuple[str, int]]
    inputs: list[RunInput] = field(default_factory=list)
    priority: float = 0.0
    status: RunStatus = "pending"
    estimate: float | None = None
    estimate_source: str = ""
    bytes: int | None = None
    unresolved: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    chosen: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Folder name of the run: `<stage>-<key>`."""
        return f"{self.stage.name}-{self.key}"

    @property
    def experiment(self) -> str:
        """First experiment that uses the run."""
        return self.users[0][0]


@dataclass(slots=True, kw_only=True)
class Plan:
    """All runs of a study in topological order, seed-major, with a forecast."""

    study: Study
    runs: dict[str, Run]
    by_user: dict[tuple[str, int, str], str] = field(default_factory=dict)
    critical_path: tuple[str, ...] = ()
    critical_seconds: float | None = None
    seconds_left: float | None = None
    seconds_without_sharing: float | None = None
    bytes_left: int | None = None

    def run_of(self, experiment: str, seed: int, stage: str) -> Run | None:
        """Return the run that does `stage` for one experiment and seed; None when the plan has none."""
        key = self.by_user.get((experiment, seed, stage))
        return None if key is None else self.runs[key]

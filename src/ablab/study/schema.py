"""The resolved study: what every other room of the control plane reads.

`ablab.study.loading.load` makes it from the YAML file, the profile and the overrides. Nothing here reads files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import field_validator, model_validator

from ablab.contract.base import Strict, setting
from ablab.contract.checklist import Expected
from ablab.contract.sizes import Bytes
from ablab.contract.task import StageSpec, TaskSpec

Quantity = Literal["ratio", "difference", "value"]
Operator = Literal["<=", "<", ">=", ">"]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition of a criterion: `ratio <= 1.05` of a metric. The number is the margin of the test.

    ratio and difference are variant against baseline (variant / baseline, variant - baseline); value is the
    variant's own.
    """

    metric: str
    quantity: Quantity
    operator: Operator
    number: float


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """Conditions joined by `and`."""

    text: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A baseline, its variants, the one factor under test, and the criterion.

    Args:
        factor: study paths under test; a difference outside them is an error until declared.
        also: paths whose difference is declared; carried by the report as a caveat.
        at: value of a metric that counts: last, or the best seen in validation.
        controls: arms that must fail or must pass for the comparison to count as sensitive.
        confidence: two-sided confidence level of the intervals.
    """

    name: str
    baseline: str
    variants: tuple[str, ...]
    factor: tuple[str, ...]
    metric: str
    criterion: Criterion
    at: Literal["last", "best"] = "last"
    also: tuple[str, ...] = ()
    fail_controls: tuple[str, ...] = ()
    pass_controls: tuple[str, ...] = ()
    confidence: float = 0.95
    question: str = ""
    exploratory: bool = False
    line: int | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        """Baseline, variants and controls, in this order."""
        return (self.baseline, *self.variants, *self.fail_controls, *self.pass_controls)


@dataclass(frozen=True, kw_only=True)
class Need:
    """An input of a stage: `[experiment.]stage[@last|@best]`. `experiment` None means the same experiment."""

    experiment: str | None
    stage: str
    checkpoint: Literal["last", "best"] = "last"
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of an experiment's pipeline, validated.

    `sections` holds the task sections as this stage sees them: the experiment's, with the stage's own overrides.
    """

    name: str
    kind: str
    spec: StageSpec
    needs: tuple[Need, ...]
    sections: Mapping[str, Strict]
    parameters: Any


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One named arm. `config` is its merged, unvalidated content (sections and pipeline), for differences."""

    name: str
    stages: tuple[Stage, ...]
    config: Mapping[str, Any]
    label: str = ""
    purpose: str = ""
    like: str | None = None
    estimate: float | None = None
    priority: float = 0.0
    planned: bool = False
    seeds: tuple[int, ...] = ()
    gate: Gate | None = None
    line: int | None = None

    def stage(self, name: str) -> Stage:
        """Return the stage called `name`; KeyError when there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)


class Retention(Strict):
    """What the store keeps once a run is complete, besides what pending runs still need."""

    last: bool = setting(True, "Keep the last checkpoint of a finished stage.")
    best: int = setting(1, "Keep the best N.", ge=0)
    every: int | None = setting(None, "Keep one every N steps.", ge=1)
    intermediate: bool = setting(False, "Keep weights of stages whose consumers are all done.")


class Device(Strict):
    """The devices a study is written for, so that what it needs is held against what they have."""

    name: str = setting(..., "What it is called, for messages.", min_length=1)
    memory: Bytes = setting(..., "Memory of one device: bytes, or 40 GB, 80 GiB.", gt=0)


class Compute(Strict):
    """How the study uses a machine; never part of a key."""

    threads: int | None = setting(None, "CPU threads of a run; None divides the cores by the runs side by side.", ge=1)
    slots: int | None = setting(None, "Runs side by side on CPU; None takes cores / threads.", ge=1)
    processes: int = setting(1, "Processes (devices) of one run.", ge=1)
    share: int = setting(1, "Runs that may share one GPU.", ge=1)
    executor: Literal["local", "ray", "slurm"] = setting("local", "Where workers start.")
    slurm: dict[str, Any] = setting(default_factory=dict, description="Parameters for submitit.")
    cooldown: float = setting(0.0, "Seconds between runs on a device.", ge=0)
    rehearse: bool = setting(True, "Rehearse each distinct configuration before the first long run.")
    device: Device | None = setting(
        None, "Devices it is written for: the audit holds the memory that training needs against theirs."
    )
    device_days: float | None = setting(
        None, "Days of one device that its author counted with nothing shared; the plan says what sharing saves of it.",
        gt=0,
    )  # fmt: skip


class Notify(Strict):
    """A webhook that is told what happens during a launch. Its address counts as a secret and is never stored."""

    url: str | None = setting(
        None,
        "Address of the webhook. It lets whoever knows it post: `url_env` keeps it out of the study file.",
        keyed=False,
        pattern=r"^https?://[^/\s]",
        repr=False,
    )
    url_env: str | None = setting(
        None,
        "Variable of the environment, or of a .env file, that holds the address.",
        keyed=False,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
    )
    kind: Literal["slack", "json"] = setting("json", "slack: {text}, as Slack takes it; json: the event whole.")
    on: tuple[Literal["finished", "failed", "verdict"], ...] = setting(
        ("finished", "failed", "verdict"),
        "finished: a launch ended; failed: a run was given up; verdict: a comparison was decided, or changed.",
        min_length=1,
    )

    @model_validator(mode="after")
    def _one_address(self) -> Notify:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("give either url_env (the name of a variable that holds the address) or url")
        return self


class Gate(Strict):
    """A result that must be reproduced before anything else runs: is the set-up to be believed at all?"""

    metric: str = setting(..., "Metric of this experiment that must come near its reference.", keyed=False)
    within: float = setting(0.02, "Relative distance that still passes: 0.02 or 2 %.", gt=0, keyed=False)
    reference: float | None = setting(
        None,
        "Number to come near; null takes the study's reference of this experiment, in the full profile. Without one "
        "nothing is held.",
        keyed=False,
    )

    @field_validator("within", mode="before")
    @classmethod
    def _percent(cls, value: Any) -> Any:
        if isinstance(value, str) and (number := value.strip().removesuffix("%")) != value.strip():
            return float(number) / 100
        return value


class References(Strict):
    """Numbers from elsewhere for one experiment."""

    source: str = setting("", "Where the numbers come from.")
    values: dict[str, float] = setting(
        default_factory=dict, description="Value by metric name; a band, [low, high], stands here by its middle."
    )
    bands: dict[str, tuple[float, float]] = setting(
        default_factory=dict, description="Lowest and highest value by metric name, where a band was given."
    )
    note: str = ""

    @model_validator(mode="after")
    def _bands_ascend(self) -> References:
        for metric, (low, high) in self.bands.items():
            if low > high:
                raise ValueError(f"{metric}: a band is [low, high], found [{low:g}, {high:g}]")
        return self


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study with its profile and overrides applied, everything resolved and typed."""

    name: str
    question: str
    task: TaskSpec
    seeds: tuple[int, ...]
    experiments: Mapping[str, Experiment]
    comparisons: tuple[Comparison, ...]
    references: Mapping[str, References] = field(default_factory=dict)
    retention: Retention = field(default_factory=Retention)
    compute: Compute = field(default_factory=Compute)
    accept: Mapping[str, str] = field(default_factory=dict)
    notify: tuple[Notify, ...] = ()
    checklist: tuple[Expected, ...] = ()
    profile: str = "full"
    profiles: tuple[str, ...] = ("full",)
    overrides: tuple[str, ...] = ()
    path: str = ""
    text: str = ""
    description: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)

    def line(self, path: str) -> int | None:
        """Return the line of the study file where `path` (or its nearest parent) stands."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path.rpartition(".")[0]
        return None

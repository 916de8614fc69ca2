"""What a finished run leaves: numbers, facts, named time, and evaluations in one format for every task.

The report renders these and knows no task.
"""

from __future__ import annotations

from typing import Any, Literal

from ablab.contract.base import Strict, setting
from ablab.contract.order import Numerics

FORMAT = 1

#: Names of time; they sum to the wall clock of a run.
TIMES = ("start-up", "data", "forward-backward", "optimizer", "validation", "checkpoint", "other")


class Best(Strict):
    """The best value of a metric during a run and the step it was seen at."""

    value: float
    step: int


class Artifact(Strict):
    """A file a run made, relative to the run folder."""

    path: str
    bytes: int
    sha256: str


class Result(Strict):
    """Content of `result.json`, written once when a run is done."""

    format: Literal[1] = 1
    key: str
    metrics: dict[str, float] = setting(default_factory=dict, description="Last value by metric name (val/perplexity).")
    best: dict[str, Best] = setting(default_factory=dict, description="Best value of each metric seen repeatedly.")
    facts: dict[str, Any] = setting(
        default_factory=dict,
        description="What only running can tell: parameters.total, parameters.trained, tokens.seen, logits.scale, ...",
    )
    time: dict[str, float] = setting(default_factory=dict, description="Seconds by name (TIMES), all attempts summed.")
    steps: dict[str, float] = setting(
        default_factory=dict, description="Step statistics without warm-up: median, p95 seconds, excluded, per_second."
    )
    peak: dict[str, int] = setting(default_factory=dict, description="Peak bytes: rss, gpu.")
    numerics: Numerics = setting(default_factory=Numerics)
    artifacts: dict[str, Artifact] = setting(default_factory=dict)
    evaluations: tuple[str, ...] = setting((), "Files with an `Evaluation`, relative to the run folder.")
    attempts: int = 1
    shared: bool = setting(False, "True when other runs shared the machine: its timings are marked.")


class Table(Strict):
    """A table of an evaluation; numbers stay numbers."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    units: dict[str, str] = setting(default_factory=dict)


class Series(Strict):
    """Points over a common x."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    x_label: str = "step"
    y_label: str = ""


class Distribution(Strict):
    """A histogram: counts between edges (one more edge than counts)."""

    name: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    label: str = ""


class Example(Strict):
    """One example with what went in, what came out, what was wanted, and scores."""

    id: str
    input: str = ""
    output: str = ""
    target: str = ""
    scores: dict[str, float] = setting(default_factory=dict)
    images: tuple[str, ...] = setting((), "Image files, relative to the run folder.")


class Evaluation(Strict):
    """What an evaluation or probe shows beside its metrics."""

    format: Literal[1] = 1
    name: str
    tables: tuple[Table, ...] = ()
    series: tuple[Series, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    examples: tuple[Example, ...] = ()
    images: tuple[str, ...] = ()


class Outcome(Strict):
    """What a stage function returns; the worker adds time, peaks, numerics and checksums and writes the `Result`."""

    metrics: dict[str, float] = setting(default_factory=dict)
    best: dict[str, Best] = setting(default_factory=dict)
    facts: dict[str, Any] = setting(default_factory=dict)
    steps: dict[str, float] = setting(default_factory=dict)
    peak: dict[str, int] = setting(
        default_factory=dict, description="Peak bytes (rss, gpu) of what did the work, where that is another process."
    )
    artifacts: dict[str, str] = setting(default_factory=dict, description="Name to path relative to the run folder.")
    evaluations: tuple[Evaluation, ...] = ()

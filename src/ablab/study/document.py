"""The study file as it is written: its top-level keys, and the entries of its lists.

Sections of a task (model, data, ...) and pipelines are not declared here: they are the task's, and are checked once
defaults, `like` and overrides are merged.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from ablab.contract.base import Strict, setting
from ablab.contract.checklist import Expected
from ablab.study.schema import Compute, Gate, Notify, Retention

#: Names become folders and parts of references (`experiment.stage@best`).
NAME = r"^\w[\w.+=-]*$"
STAGE_NAME = re.compile(r"[A-Za-z_][\w-]*\Z")

Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
Names = tuple[str, ...]


class ExperimentEntry(Strict):
    """One experiment: what is said about it, beside the task's sections and `pipeline`."""

    label: str = setting("", "Short name of the arm, for tables (baseline, frozen).")
    purpose: str = setting("", "Why the experiment is there.")
    like: str | None = setting(None, "Experiment whose sections and pipeline this one starts from.")
    estimate: float | str | None = setting(
        None, "Expected duration: 4h31m, 20 min, 1:30:00, or seconds.", keyed=False, unit="seconds"
    )
    priority: float = setting(0.0, "Within one seed, a higher priority starts earlier.", keyed=False)
    planned: bool = setting(False, "Shown in plan and report, never started.", keyed=False)
    seeds: Seeds | None = setting(None, "Seeds of this experiment instead of the study's.")
    gate: Gate | None = setting(None, "A result that must be reproduced before anything else runs.", keyed=False)


class MatrixEntry(Strict):
    """Experiments made from axes: one for each combination of their values."""

    name: str | None = setting(
        None, "Template of the names, for example L{model.layers}-lr{learning_rate}; null names all axes."
    )
    like: str | None = setting(None, "Experiment that all start from; null starts from the defaults.")
    axes: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = setting(
        ..., "Values by experiment path (model.layers).", min_length=1
    )
    exclude: tuple[dict[str, Any], ...] = setting((), "Combinations left out: mappings of path to value.")
    label: str = setting("", "Template of the labels.")
    purpose: str = setting("", "Why the experiments are there.")
    estimate: float | str | None = setting(None, "Expected duration of each.", keyed=False, unit="seconds")
    priority: float = setting(0.0, "Priority of each.", keyed=False)
    planned: bool = setting(False, "Shown, never started.", keyed=False)
    seeds: Seeds | None = setting(None, "Seeds of these experiments instead of the study's.")


class Controls(Strict):
    """Arms that show whether a comparison can see anything."""

    fail: Names = setting((), "Experiments that must fail the criterion.")
    passing: Names = setting((), "Experiments that must meet the criterion.", alias="pass")


class ComparisonEntry(Strict):
    """A comparison: baseline, variants, the factor under test, the metric, the criterion."""

    name: str | None = setting(None, "Name; null numbers it (comparison-1).")
    question: str = setting("", "The question it answers.")
    baseline: str = setting(..., "Experiment the variants are measured against.")
    variants: str | Names = setting(..., "Experiments, or patterns on their names (GPT-*).")
    factor: str | Names = setting(..., "Study path or paths under test; other differences are errors.")
    also: str | Names = setting((), "Paths whose difference is declared; a caveat beside the verdict.")
    metric: str | None = setting(None, "Metric that decides, for example val/perplexity; metric@best sets `at`.")
    criterion: str | None = setting(
        None, "[metric] ratio|difference|value OP number, joined by `and`: ratio <= 1.05 (variant / baseline)."
    )
    at: Literal["last", "best"] | None = setting(None, "Value that counts: the last (default) or the best seen.")
    controls: Controls = setting(default_factory=Controls, description="Arms that must fail or must pass.")
    confidence: float = setting(0.95, "Two-sided confidence level of the intervals.", gt=0.5, lt=1)
    exploratory: bool = setting(False, "Shown without a verdict; needs no criterion.")


class StudyFile(Strict):
    """The top level of a study file."""

    name: str = setting(..., "Name of the study; its folder in the store.", pattern=NAME)
    question: str = setting("", "The question the study answers.")
    description: str = setting("", "Background, for the report.")
    task: str = setting(..., "Task: language-modeling, ..., a registered one, or file.py:SPEC.")
    seeds: Seeds = setting((42,), "Repetitions; arms are paired by seed.")
    defaults: Any = setting(None, "Sections and pipeline that every experiment starts from.")
    experiments: Any = setting(None, "Experiments by name.")
    matrix: Any = setting(None, "Experiments made from axes: one mapping, or a list of them.")
    comparisons: Any = setting(None, "Comparisons, in the order of the report.")
    references: Any = setting(
        None, "Numbers from elsewhere by experiment: metric to value or band [low, high], source, note."
    )
    profiles: Any = setting(None, "Named overlays of the study (laptop, smoke); `full` is the study itself.")
    retention: Retention = setting(default_factory=Retention, description="What the store keeps.", keyed=False)
    compute: Compute = setting(default_factory=Compute, description="How the study uses a machine.", keyed=False)
    accept: dict[str, Annotated[str, Field(min_length=1)]] = setting(
        default_factory=dict, description="Findings the author accepts: id or id@where to the reason."
    )
    checklist: tuple[Expected, ...] = setting(
        (), "Models and data sets with the sizes they should have; `ablab fetch` holds them against what it finds.",
        keyed=False,
    )  # fmt: skip
    notify: tuple[Notify, ...] = setting(
        (), "Webhooks that are told when a launch ends, a run fails, or a verdict is reached.", keyed=False
    )


#: Keys a profile may not change: the study's identity, and profiles themselves.
NOT_IN_PROFILE = frozenset(("name", "task", "profiles"))

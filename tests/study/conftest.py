"""A small task and a small valid study, independent of the tasks that ship with Ablab."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from ablab.study.loading import StudyError, load
from ablab.study.schema import Study

TASK = '''
"""A task of toy blocks that no code computes."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ablab.contract.base import Strict, setting
from ablab.contract.task import Metric, StageSpec, TaskSpec
from ablab.contract.training import Train


class Linear(Strict):
    kind: Literal["linear"] = "linear"
    gain: float = setting(1.0, "Gain.", gt=0)


class Deep(Strict):
    kind: Literal["deep"] = "deep"
    depth: int = setting(2, "Depth.", ge=1)


class Heads(Strict):
    count: int = setting(4, "Heads.", ge=1)
    frozen: bool = setting(False, "Not trained.")


class Model(Strict):
    layers: int = setting(2, "Blocks.", ge=1, le=100)
    width: int = setting(8, "Width.", ge=1, unit="features")
    heads: Heads = setting(default_factory=Heads, description="Attention heads.")
    connector: Annotated[Linear | Deep, Field(discriminator="kind")] = setting(default_factory=Linear)
    scale: float | Literal["auto"] = setting("auto", "Scale.")
    extra: dict[str, float] = setting(default_factory=dict, description="Open names.")

    @model_validator(mode="after")
    def _fits(self):
        if self.width % self.heads.count:
            raise ValueError(f"width {self.width} is not divisible by heads.count {self.heads.count}")
        return self


class Data(Strict):
    source: str = setting(..., "Corpus.")
    files: tuple[str, ...] = setting((), "Files.", keyed=False)
    limit: int | None = setting(None, "Rows.", ge=1, stages=("prepare",))


class Prepare(Strict):
    workers: int | None = setting(None, "Processes.", ge=1, keyed=False)


class Evaluate(Strict):
    split: Literal["val", "test"] = setting("test", "Split.")


SPEC = TaskSpec(
    name="toy",
    title="Toy",
    sections={"model": Model, "data": Data},
    stages={
        "prepare": StageSpec(kind="prepare", parameters=Prepare, run="x:y", sections=("data",), seeded=False),
        "train": StageSpec(
            kind="train", parameters=Train, run="x:y", sections=("model", "data"), inputs=("prepare", "train"),
            makes_checkpoints=True, metrics=("val/loss",),
        ),
        "evaluate": StageSpec(
            kind="evaluate", parameters=Evaluate, run="x:y", sections=("model",), inputs=("prepare", "train"),
        ),
    },
    pipeline={"prepare": {}, "train": {}, "evaluate": {}},
    metrics=(
        Metric(name="*/loss", direction="lower", description="Loss."),
        Metric(name="*/perplexity", direction="lower", description="Perplexity.", log_scale=True),
    ),
)
'''

STUDY = """\
name: toy-study
question: Do frozen heads keep the loss?
task: task.py:SPEC
seeds: [1, 2, 3]
defaults:
  model: {layers: 2, width: 8}
  data: {source: books}
  pipeline:
    train: {steps: 100, optimizer: {learning_rate: 3e-4}}
experiments:
  base: {label: baseline, purpose: to compare with, estimate: 4h31m, priority: 2}
  frozen:
    like: base
    model: {heads: {frozen: true}}
  longer:
    like: frozen
    planned: true
    seeds: [1]
    pipeline: {train: {steps: 200}}
comparisons:
  - baseline: base
    variants: [frozen]
    factor: model.heads.frozen
    metric: val/loss
    criterion: ratio <= 1.05
references:
  base: {val/loss: 1.5, val/perplexity: [4, 5], source: a paper}
profiles:
  laptop:
    seeds: [1, 2]
    defaults: {model: {layers: 1}}
  smoke: {seeds: [1], experiments: {longer: null}}
retention: {best: 2}
compute: {threads: 2}
accept: {single-seed: only a smoke test}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the toy task."""
    (tmp_path / "task.py").write_text(TASK)
    return tmp_path


@pytest.fixture
def study_text() -> str:
    """The text of a valid study that uses every top-level key."""
    return STUDY


@pytest.fixture
def study_of(folder: Path) -> Callable[..., Study]:
    """Load a study from text beside the toy task."""

    def load_it(text: str = STUDY, **options: object) -> Study:
        path = folder / "study.yaml"
        path.write_text(textwrap.dedent(text))
        return load(path, **options)

    return load_it


@pytest.fixture
def problems_of(study_of: Callable[..., Study]) -> Callable[..., list]:
    """Return the problems that loading a text finds."""

    def find(text: str, **options: object) -> list:
        with pytest.raises(StudyError) as caught:
            study_of(text, **options)
        return list(caught.value.problems)

    return find

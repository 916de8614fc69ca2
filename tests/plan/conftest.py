"""A small task without torch, and studies of it built by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from ablab.contract.base import Strict, setting
from ablab.contract.order import Numerics, Order
from ablab.contract.result import Result
from ablab.contract.select import SELECT
from ablab.contract.state import State
from ablab.contract.task import DataReference, StageSpec, TaskSpec
from ablab.contract.training import Train
from ablab.store.layout import Store
from ablab.store.snapshot import cpu_name
from ablab.study.schema import Comparison, Criterion, Experiment, Need, Stage, Study


class Model(Strict):
    width: int = setting(8, "")
    dropout: float = setting(0.0, "", stages=("train",))
    note: str = setting("", "", keyed=False)


class Data(Strict):
    source: str = setting("hub/name", "")
    file: str | None = setting(None, "", keyed=False)


class Nothing(Strict):
    pass


class Evaluate(Strict):
    split: Literal["val", "test"] = setting("test", "")
    sample: bool = setting(False, "")


class Merge(Strict):
    weights: tuple[float, ...] = setting((0.5, 0.5), "")


def _references(sections: Mapping[str, Any], _: Any) -> list[DataReference]:
    data = sections["data"]
    if data.file is not None:
        return [DataReference(kind="file", name=data.file, path="data.file")]
    return []


PREPARE = StageSpec(
    kind="prepare", parameters=Nothing, run="x:y", sections=("data",), seeded=False, references=_references,
    accelerator=False,
)  # fmt: skip
TRAIN = StageSpec(
    kind="train", parameters=Train, run="x:y", sections=("model",), inputs=("prepare", "train"),
    makes_checkpoints=True, steps=lambda _, p: p.steps, effective_batch=lambda _, p: p.batch,
)  # fmt: skip
EVALUATE = StageSpec(
    kind="evaluate", parameters=Evaluate, run="x:y", sections=("model",), seeded=lambda _, p: p.sample,
    inputs=("train", "prepare", "merge"),
)  # fmt: skip
MERGE = StageSpec(kind="merge", parameters=Merge, run="x:y", seeded=False, inputs=("train",))
TASK = TaskSpec(
    name="toy", title="Toy", sections={"model": Model, "data": Data}, pipeline={},
    stages={spec.kind: spec for spec in (PREPARE, TRAIN, EVALUATE, MERGE)},
)  # fmt: skip
SPECS = {**TASK.stages, "select": SELECT}


def need(text: str) -> Need:
    target, _, checkpoint = text.partition("@")
    experiment, _, stage = target.rpartition(".")
    which: Any = checkpoint or "last"
    return Need(experiment=experiment or None, stage=stage, checkpoint=which, text=text)


def stage(
    name: str, needs: str = "", *, kind: str | None = None, model: Any = None, data: Any = None, **parameters: Any
) -> Stage:
    spec = SPECS[kind or name]
    sections = {"model": Model(**(model or {})), "data": Data(**(data or {}))}
    if spec is TRAIN and not {"steps", "epochs"} & parameters.keys():
        parameters["steps"] = 100
    return Stage(
        name=name,
        kind=spec.kind,
        spec=spec,
        needs=tuple(map(need, needs.split())),
        sections={name: sections[name] for name in spec.sections},
        parameters=spec.parameters.model_validate(parameters),
    )


def usual(model: Any = None, data: Any = None, best: bool = False, **train: Any) -> tuple[Stage, ...]:
    return (
        stage("prepare", data=data),
        stage("train", "prepare", model=model, **train),
        stage("evaluate", "prepare train@best" if best else "prepare train", model=model),
    )


def study(
    experiments: Mapping[str, Any],
    *,
    seeds: tuple[int, ...] = (1, 2, 3),
    path: str = "",
    task: TaskSpec = TASK,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    **fields: Any,
) -> Study:
    made = {
        name: Experiment(name=name, stages=tuple(stages), config={}, **(options or {}).get(name, {}))
        for name, stages in experiments.items()
    }
    return Study(
        name="toy-study", question="", task=task, seeds=seeds, experiments=made, path=path,
        comparisons=fields.pop("comparisons", ()), **fields,
    )  # fmt: skip


def comparison(baseline: str, *variants: str, **fields: Any) -> Comparison:
    return Comparison(
        name="c", baseline=baseline, variants=variants, factor=("model",), metric="val/loss",
        criterion=Criterion(text="", conditions=()), **fields,
    )  # fmt: skip


def finish(store: Store, run: Any, **fields: Any) -> None:
    """Leave the result of a run in the store, as a worker would."""
    folder = store.run(run.name).create()
    numerics = fields.pop("numerics", None) or Numerics(device_name=cpu_name())
    folder.write_result(Result(key=run.key, numerics=numerics, **fields))
    folder.write_state(State(status="done", updated=0.0))


def write_order(store: Store, run: Any) -> None:
    """Leave the order of a run in the store."""
    content = {name: block.model_dump(mode="json") for name, block in run.stage.sections.items()}
    folder = store.run(run.name).create()
    folder.write_order(
        Order(
            key=run.key, stage=run.stage.name, kind=run.stage.kind, task="toy", study="s", profile="full",
            experiment=run.experiment, sections=content, folder=str(folder.path),
            parameters=run.stage.parameters.model_dump(mode="json"),
        )
    )  # fmt: skip


@pytest.fixture
def toy() -> SimpleNamespace:
    """Everything to build studies of the toy task."""
    return SimpleNamespace(
        Model=Model, Data=Data, TASK=TASK, TRAIN=TRAIN, EVALUATE=EVALUATE, stage=stage, usual=usual, study=study,
        comparison=comparison, finish=finish, write_order=write_order, need=need,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "lab")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep fingerprints of test files out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def toy_module() -> SimpleNamespace:
    """The toy task for fixtures that outlive a test."""
    return SimpleNamespace(stage=stage, usual=usual, study=study)

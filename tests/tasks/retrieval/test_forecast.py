"""The plan forecasts one epoch of all of InfoSeek from the measured epoch of its balanced part."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablab.contract.order import Numerics
from ablab.contract.registry import find_task
from ablab.contract.result import Result
from ablab.contract.state import State
from ablab.data.emoji import concepts, divide
from ablab.data.mini_m2kr import generate
from ablab.plan.devices import devices
from ablab.plan.planning import make_plan
from ablab.store.layout import Store
from ablab.study.loading import load
from ablab.tasks.retrieval.sections import MINI_QUERIES, Data

STUDY = """
name: forecast
question: How long does all of InfoSeek take?
task: retrieval
seeds: [42]
defaults:
  data: {source: m2kr, subset: Infoseek, images: images}
  towers: {pair: owner/pair}
  pipeline:
    train: {epochs: 1, batch: 64}
    evaluate: null
experiments:
  balanced: {purpose: measured, data: {rows: 76265}}
  all: {purpose: forecast, planned: true}
  val: {purpose: forecast, data: {rows: 76265}, pipeline: {train: {split: test}}}
"""


@pytest.fixture
def study(tmp_path: Path) -> Any:
    path = tmp_path / "forecast.yaml"
    path.write_text(STUDY)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"x")
    return load(path)


def finish(store: Store, run: Any, **fields: Any) -> None:
    folder = store.run(run.name).create()
    device = devices().of(run.stage)
    folder.write_result(Result(key=run.key, numerics=Numerics(device_name=device), **fields))
    folder.write_state(State(status="done", updated=0.0))


def test_all_of_infoseek_is_forecast_from_its_balanced_part(study: Any, tmp_path: Path) -> None:
    store = Store(tmp_path / "lab")
    plan = make_plan(study, store)
    measured = plan.run_of("balanced", 42, "train")
    assert measured is not None
    facts = {"samples.train": 76_265, "steps.done": 1192, "samples.seen": 76_288}
    finish(store, measured, time={"start-up": 20.0, "data": 1.0, "forward-backward": 125.0}, facts=facts)
    plan = make_plan(study, store)
    run = plan.run_of("all", 42, "train")
    assert run is not None and run.estimate_source.startswith("history: 1 run of this configuration over other data")
    # InfoSeek has no validation split: a twentieth of the 676,441 queries is set aside, 642,619 are left.
    train = 676_441 - round(0.05 * 676_441)
    assert run.estimate == pytest.approx(20 + 126 * -(-train // 64) / 1192)


@pytest.mark.parametrize("name", sorted(MINI_QUERIES))
def test_the_counts_of_the_generated_set_are_its_own(name: str) -> None:
    things = concepts()
    division = divide(things)
    made = generate(things, subset=name, division=division)
    assert MINI_QUERIES[name] == tuple(len(made.queries[split]) for split in ("train", "val", "test"))
    assert Data(source="mini-m2kr", subset=name).counts == dict(
        zip(("train", "val", "test"), MINI_QUERIES[name], strict=True)
    )


def test_counts_are_told_only_where_they_are_known() -> None:
    assert Data(source="mini-m2kr", subset="okvqa", both_sides=True).counts == {}
    assert Data(source="mini-m2kr", subset="okvqa", rows=100).counts["train"] == 100
    assert Data(source="m2kr", subset="EVQA").counts == {"train": 167_369, "val": 9_852, "test": 3_750}
    spec = find_task("retrieval").stages["prepare"]
    assert spec.samples is not None
    assert spec.samples({"data": Data(source="m2kr", subset="EVQA")}, SimpleNamespace())["test"] == 3_750

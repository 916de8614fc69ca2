"""Any two arms or runs: found by what people type, paired by seed, never across steps, and without a verdict."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from ablab.analysis.results import Curve
from ablab.contract.failure import ConfigError
from ablab.plan.graph import Plan
from ablab.report.compare import CurvePair, compare, figures
from ablab.report.compare_text import document
from ablab.report.figures import figure_csv
from ablab.report.markdown import render
from ablab.report.sides import find_sides, planned_source
from ablab.store.layout import Store
from tests.report.filled import fill, frozen_launch, smoke, usual

A, B = "trained", "frozen-orthogonal"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Plan]:
    store = Store(tmp_path_factory.mktemp("lab"))
    study = smoke()
    plan = fill(store, study, status={("blind", 123, "train"): "failed", ("blind", 123, "evaluate"): "pending"})
    frozen_launch(store, study, plan)
    return store, plan


def test_arms_are_found_from_the_store_alone_and_paired_by_seed(filled: tuple[Store, Plan]) -> None:
    store, _ = filled
    a, b = find_sides(store, (A, B))
    assert (set(a.runs), a.source[:6]) == ({42, 123}, "launch")
    view = compare(a, b)
    row = next(row for row in view.metrics if row.metric == "test/perplexity")
    logs = [usual(B, seed) - usual(A, seed) for seed in (42, 123)]
    low, high = stats.t.interval(0.95, 1, loc=sum(logs) / 2, scale=stats.sem(logs))
    assert row.effect is not None
    assert row.effect.mean == pytest.approx(math.exp(sum(logs) / 2))
    assert (row.effect.low, row.effect.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert {each.path for each in view.differences} == {"model.attention.query_key"}


def test_a_study_file_says_which_runs_are_meant(filled: tuple[Store, Plan]) -> None:
    store, plan = filled
    a, b = find_sides(store, (A, B), planned_source(plan.study, store))
    assert [run.folder.name for run in a.runs[42]] == [
        plan.run_of(A, 42, stage).name
        for stage in ("prepare", "train", "evaluate")  # type: ignore[union-attr]
    ]
    assert compare(a, b).metrics == compare(*find_sides(store, (A, B))).metrics


def test_a_run_is_found_by_name_key_its_beginning_and_its_arm(filled: tuple[Store, Plan]) -> None:
    store, plan = filled
    run = plan.run_of(A, 42, "train")
    assert run is not None
    for text in (run.name, run.key, run.key[:9], run.name[:14], f"{A}/42/train", f"{A}/seed-42/train"):
        side, _ = find_sides(store, (text, f"{B}/42/train"))
        assert side.all_runs()[0].folder.name == run.name
    (side, other) = find_sides(store, (run.key, B))
    assert other.all_runs()[0].order.experiment == B  # type: ignore[union-attr]
    assert other.all_runs()[0].order.seed == 42  # type: ignore[union-attr]


def test_runs_differ_in_what_they_were_asked(filled: tuple[Store, Plan]) -> None:
    view = compare(*find_sides(filled[0], (f"{A}/42/train", f"{B}/123/train")))
    paths = {each.path: (each.a, each.b) for each in view.differences}
    assert paths["seed"] == (42, 123)
    assert paths["model.attention.query_key"] == ("trained", "frozen-orthogonal")
    assert any("seeds differ" in warning for warning in view.warnings)
    same = compare(*find_sides(filled[0], (f"{A}/42/train", f"{A}/42/train")))
    assert same.differences == ()
    assert all(row.effect is not None and row.effect.mean == 1.0 for row in same.metrics)


def test_what_is_not_complete_is_said_and_counts_in_no_metric(filled: tuple[Store, Plan]) -> None:
    view = compare(*find_sides(filled[0], (A, "blind")))
    assert any("not complete" in warning and "failed" in warning for warning in view.warnings)
    row = next(row for row in view.metrics if row.metric == "val/loss")
    assert row.b is not None
    assert (row.b.n, row.effect.n if row.effect else 0) == (1, 1)
    pair = next(pair for pair in view.curves if pair.metric == "val/loss")
    assert pair.gaps["seed 42"].steps == (5, 10, 15, 20)
    assert pair.gaps["seed 123"].steps == (5, 10)


def test_a_gap_is_taken_at_equal_steps_only(filled: tuple[Store, Plan]) -> None:
    view = compare(*find_sides(filled[0], (A, B)), metrics=["val/loss"])
    (pair,) = view.curves
    moved = {
        label: Curve(name=curve.name, steps=tuple(step + 1 for step in curve.steps), values=curve.values)
        for label, curve in pair.b.items()
    }
    shifted = replace(view, curves=(replace(pair, b=moved, gaps={}),))
    assert "No step was logged on both sides" in render(document(shifted))
    assert isinstance(pair, CurvePair)
    for label, gap in pair.gaps.items():
        ours, theirs = pair.a[label], pair.b[label]
        assert list(gap.values) == [(theirs.at_step(step) or 0) / (ours.at_step(step) or 1) for step in gap.steps]


def test_the_document_calls_itself_exploratory_and_json_holds_the_numbers(filled: tuple[Store, Plan]) -> None:
    view = compare(*find_sides(filled[0], (A, B)))
    text = render(document(view))
    assert "Exploratory" in text
    assert "| 20 |" in text
    record = json.loads(json.dumps(view.as_json()))
    assert record["exploratory"] is True
    assert {gap["metric"] for gap in record["gaps"]} == {"train/loss", "val/loss", "val/perplexity"}
    rows = figure_csv(figures(view)[0]).splitlines()
    assert rows[0].startswith("arm,seed")
    assert len(rows) > 20


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (("traned", B), "did you mean trained"),
        ((A, f"{B}/7"), "it has 42, 123"),
        ((A, f"{B}/42/trian"), "did you mean train"),
        ((A, "blind/123/evaluate"), "has not started"),
    ],
)
def test_a_wrong_name_is_told(filled: tuple[Store, Plan], texts: tuple[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        find_sides(filled[0], texts)


def test_a_wrong_metric_is_told_with_the_nearest(filled: tuple[Store, Plan]) -> None:
    with pytest.raises(ConfigError, match="val/perplexity"):
        compare(*find_sides(filled[0], (A, B)), metrics=["val/perplexty"])


def test_an_empty_store_has_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run or experiment"):
        find_sides(Store(tmp_path), (A, B))

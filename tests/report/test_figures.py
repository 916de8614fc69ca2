"""Figures as data: what the band is made of, equal steps, and a CSV that holds every point."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.analysis.results import Arm, Curve, Results, RunRecord
from ablab.analysis.verdicts import judge
from ablab.report.figures import Curves, Forest, Trace, band, figure_csv, make_figures
from tests.analysis.conftest import METRIC, make


def with_curves(drawn: dict[str, list[tuple[list[int], list[float], str]]]) -> tuple[Any, Results]:
    """Return a study whose arms have one curve a seed: (steps, values, status)."""
    study, results = make({name: [values[-1] for _, values, _ in seeds] for name, seeds in drawn.items()})
    runs, arms = {}, []
    for arm in results.arms:
        steps, values, status = drawn[arm.experiment][arm.seed - 1]
        key = f"{arm.experiment}-{arm.seed}"
        curve = Curve(name=METRIC, steps=tuple(steps), values=tuple(values))
        runs[key] = RunRecord(
            key=key, name=f"train-{key}", stage="train", kind="train", seed=arm.seed,
            users=((arm.experiment, arm.seed),), status=status, curves={METRIC: curve},
        )  # fmt: skip
        arms.append(replace(arm, runs={"train": key}, status=status))
    return study, Results(study=study, arms=tuple(arms), runs=runs)


def trace(values: list[float], steps: list[int] | None = None, status: str = "done") -> Trace:
    steps = steps or list(range(len(values)))
    return Trace(arm="a", seed=1, run="r", status=status, steps=tuple(steps), values=tuple(values))


@given(st.lists(st.lists(st.floats(0.1, 100), min_size=4, max_size=4), min_size=1, max_size=5))
def test_a_band_over_equal_steps_is_mean_minimum_and_maximum(rows: list[list[float]]) -> None:
    found = band([trace(row) for row in rows])
    assert found is not None
    table = numpy.array(rows)
    assert numpy.allclose(found.mean, table.mean(axis=0))
    assert found.low == tuple(table.min(axis=0))
    assert found.high == tuple(table.max(axis=0))
    geometric = band([trace(row) for row in rows], geometric=True)
    assert geometric is not None
    assert numpy.allclose(geometric.mean, numpy.exp(numpy.log(table).mean(axis=0)))


def test_curves_logged_at_other_steps_are_read_between_their_points_and_never_beyond_them() -> None:
    one, two = trace([0.0, 10.0, 20.0], [0, 10, 20]), trace([5.0, 25.0], [5, 25])
    found = band([one, two])
    assert found is not None
    assert found.steps == (5, 10, 20)
    assert numpy.allclose(found.low, numpy.interp(found.steps, [0, 10, 20], [0, 10, 20]))


def test_a_running_seed_stands_alone_and_moves_no_mean() -> None:
    steps = [10, 20, 30]
    _, results = with_curves(
        {
            "base": [(steps, [3.0, 2.0, 1.0], "done"), (steps, [5.0, 4.0, 3.0], "done"), ([10], [100.0], "running")],
            "arm": [(steps, [6.0, 4.0, 2.0], "done"), (steps, [10.0, 8.0, 6.0], "done"), ([10], [1.0], "failed")],
        }
    )
    curves, gap = (
        next(f for f in make_figures(results.study, results, [], kinds=(kind,)) if isinstance(f, Curves))
        for kind in ("curves", "gap")
    )
    base = curves.band("base")
    assert base is not None
    assert (base.n, base.mean) == (2, (4.0, 3.0, 2.0))
    over = gap.band("arm")
    assert over is not None
    assert over.mean == pytest.approx((2.0, 2.0, 2.0))
    assert (gap.rule, gap.neutral) == (1.05, 1.0)
    alone = [t for t in gap.traces if not t.complete]
    assert [(t.seed, t.steps, t.values) for t in alone] == [(3, (10,), (0.01,))]


def test_gaps_are_never_taken_across_steps() -> None:
    _, results = with_curves(
        {"base": [([19_000, 21_000], [1.0, 1.0], "done")], "arm": [([20_000, 21_000], [9.0, 2.0], "done")]}
    )
    found = [f for f in make_figures(results.study, results, [], kinds=("gap",)) if isinstance(f, Curves)]
    assert [(t.steps, t.values) for t in found[0].traces] == [((21_000,), (2.0,))]


def test_the_csv_of_curves_holds_every_point_whole() -> None:
    steps, values = [1, 2, 3], [1 / 3, 2 / 3, math.pi]
    _, results = with_curves({"base": [(steps, values, "done")], 'arm, "x"': [(steps, values, "done")]})
    made = next(f for f in make_figures(results.study, results, [], kinds=("curves",)))
    rows = list(csv.DictReader(io.StringIO(figure_csv(made))))
    mine = [row for row in rows if row["arm"] == 'arm, "x"' and row["seed"] == "1"]
    assert [float(row["value"]) for row in mine] == values
    assert {row["run"] for row in mine} == {'train-arm, "x"-1'}


def test_points_are_those_of_the_verdict() -> None:
    study, results = make({"base": [10.0, 20.0], "arm": [11.0, 21.0], "bad": [30.0, 61.0]}, fail=("bad",))
    verdicts = judge(study, results)
    (made,) = make_figures(study, results, verdicts, kinds=("points",))
    assert isinstance(made, Forest)
    condition = verdicts[0].variants[0].conditions[0]
    assert made.arms[0].values == ((1, 1.1), (2, 1.05))
    assert (made.arms[0].low, made.arms[0].high) == (condition.low, condition.high)
    assert made.arms[1].verdict.startswith("control, must fail: ")
    rows = list(csv.DictReader(io.StringIO(figure_csv(made))))
    assert {row["seed"] for row in rows} == {"1", "2", "all"}


def test_names_of_files_are_safe_and_distinct() -> None:
    study, results = make({"base": [1.0, 2.0], "arm": [1.0, 2.0]})
    evil = replace(study.comparisons[0], name="../../etc/passwd")
    study = replace(study, comparisons=(evil,))
    verdicts = judge(study, replace(results, study=study))
    (made,) = make_figures(study, results, verdicts, kinds=("points",))
    assert "/" not in made.name
    assert not made.name.startswith(".")


def test_nothing_logged_is_nothing_drawn() -> None:
    study, results = make({"base": [None], "arm": [None]})
    assert make_figures(study, results, judge(study, results)) == []
    assert isinstance(results.arms[0], Arm)

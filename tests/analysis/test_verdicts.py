"""Verdicts on results made by hand, where what must come out is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ablab.analysis.verdicts import judge
from ablab.study.schema import Criterion

Make = Callable[..., tuple]


def only(make: Make, *args: object, **options: object):
    study, results = make(*args, **options)
    return judge(study, results)[0]


def test_met_not_met_and_undecided_with_the_interval_of_the_log_ratios(make: Make) -> None:
    base = [20.0, 21.0, 19.5]
    verdict = only(
        make,
        {
            "A": base,
            "same": [20.1, 21.0, 19.6],
            "worse": [23.9, 25.3, 23.4],
            "noisy": [20.0, 23.5, 20.5],
        },
    )
    assert [variant.verdict for variant in verdict.variants] == ["met", "not met", "undecided"]
    noisy = verdict.variant("noisy").conditions[0]
    logs = np.log(np.array([20.0, 23.5, 20.5]) / np.array(base))
    # The least certain of three is the last step of Holm: its interval is drawn at the plain 95 %.
    reference = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    assert (noisy.low, noisy.high) == pytest.approx((math.exp(reference.low), math.exp(reference.high)))
    assert noisy.point == pytest.approx(math.exp(logs.mean()))
    assert noisy.level == pytest.approx(0.95)
    assert [pair.effect for pair in noisy.pairs] == pytest.approx([1.0, 23.5 / 21.0, 20.5 / 19.5])
    assert verdict.sensitive is None


def test_every_interval_is_drawn_at_its_holm_step(make: Make) -> None:
    verdict = only(make, {"A": [10.0] * 3, "x": [9.0, 9.1, 9.0], "y": [9.2, 9.8, 9.5], "z": [12.9, 13.0, 13.1]})
    levels = {variant.rank: variant.level for variant in verdict.variants}
    assert levels == pytest.approx({1: 1 - 0.05 / 3, 2: 1 - 0.05 / 2, 3: 0.95})
    for variant in verdict.variants:
        found = variant.conditions[0]
        logs = np.log([pair.effect for pair in found.pairs])
        reference = stats.ttest_1samp(logs, 0).confidence_interval(variant.level)
        assert math.log(found.low) == pytest.approx(reference.low)


def test_holm_stops_later_variants_and_says_so(make: Make) -> None:
    arms = {"A": [10.0] * 3, "x": [9.9, 10.15, 10.1], "y": [9.9, 10.2, 10.1]}
    alone = only(make, {"A": arms["A"], "y": arms["y"]})
    assert alone.variants[0].verdict == "met"
    together = only(make, arms)
    assert [variant.verdict for variant in together.variants] == ["undecided", "undecided"]
    assert together.variant("y").code == "holm-stopped"
    assert "stopped at x" in together.variant("y").reason


@pytest.mark.parametrize(
    ("criterion", "values", "expected"),
    [
        ("ratio >= 0.95", [9.9, 10.0, 9.95], "met"),
        ("ratio >= 0.95", [8.0, 8.1, 8.05], "not met"),
        ("ratio < 0.9", [8.0, 8.1, 8.05], "met"),
        ("difference <= 0.5", [10.1, 10.2, 10.1], "met"),
        ("difference > 0.5", [10.1, 10.2, 10.1], "not met"),
        ("difference >= 0.5", [11.1, 11.2, 11.1], "met"),
        ("value <= 12", [10.1, 10.2, 10.1], "met"),
        ("value > 12", [10.1, 10.2, 10.1], "not met"),
    ],
)
def test_every_quantity_and_operator(make: Make, criterion: str, values: list[float], expected: str) -> None:
    verdict = only(make, {"A": [10.0, 10.0, 10.0], "x": values}, criterion=criterion)
    assert verdict.variants[0].verdict == expected
    if criterion.startswith("value"):
        found = verdict.variants[0].conditions[0]
        reference = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((reference.low, reference.high))


def test_one_random_seed_is_undecided_however_large_the_effect(make: Make) -> None:
    verdict = only(make, {"GPT-01": [4.27], "GPT-02": [4.69], "GPT-03": [4.97]})
    for variant in verdict.variants:
        assert (variant.verdict, variant.code) == ("undecided", "one-seed")
        assert variant.conditions[0].low is None
    assert verdict.variant("GPT-02").conditions[0].point == pytest.approx(4.69 / 4.27)


def test_arms_without_randomness_are_constants(make: Make) -> None:
    zero_shot = only(make, {"A": [50.0], "x": [51.0]}, constants=("A", "x"))
    assert (zero_shot.variants[0].verdict, zero_shot.variants[0].code) == ("met", "constant")
    assert zero_shot.variants[0].conditions[0].n == 1
    mixed = only(make, {"A": [50.0, 50.0, 50.0], "x": [49.0, 50.5, 49.5]}, constants=("A",))
    assert mixed.variants[0].conditions[0].n == 3
    assert [pair.baseline for pair in mixed.variants[0].conditions[0].pairs] == [50.0] * 3


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [("ratio <= 1.05", "met"), ("ratio < 1.05", "not met"), ("ratio >= 1.05", "met"), ("ratio > 1.05", "not met")],
)
def test_a_constant_on_the_margin_follows_the_operator(make: Make, criterion: str, expected: str) -> None:
    verdict = only(make, {"A": [20.0], "x": [21.0]}, constants=("A", "x"), criterion=criterion)
    assert verdict.variants[0].verdict == expected


def test_a_ratio_of_a_value_that_is_not_positive_is_undecided(make: Make) -> None:
    verdict = only(make, {"A": [1.0, 0.0, 1.0], "x": [1.0, 1.0, 1.0]})
    assert (verdict.variants[0].verdict, verdict.variants[0].code) == ("undecided", "not-positive")
    difference = only(make, {"A": [1.0, 0.0, 1.1], "x": [1.0, 0.0, 1.1]}, criterion="difference <= 0.5")
    assert difference.variants[0].verdict == "met"


def test_a_value_that_is_not_finite_is_undecided(make: Make) -> None:
    verdict = only(make, {"A": [1.0, 1.0, 1.0], "x": [1.0, math.inf, 1.0]})
    assert (verdict.variants[0].verdict, verdict.variants[0].code) == ("undecided", "not-finite")


def test_missing_seeds_are_named_and_make_a_verdict_provisional(make: Make) -> None:
    verdict = only(make, {"A": [20.0, 21.0, 19.5], "x": [20.1, None, 19.6]})
    variant = verdict.variants[0]
    assert variant.missing == {"x": (2,)} and variant.provisional
    assert variant.seeds == (1, 3)
    nothing = only(make, {"A": [20.0, 21.0, 19.5], "x": [None, None, None]})
    assert nothing.variants[0].code == "no-values" and "seeds 1, 2, 3" in nothing.variants[0].reason


def test_a_diverged_seed_cannot_help_its_arm(make: Make) -> None:
    values = {"A": [20.0, 21.0, 19.5, 20.0], "x": [20.1, None, 19.6, 20.05]}
    verdict = only(make, values, diverged={"x": [2]})
    assert (verdict.variants[0].verdict, verdict.variants[0].code) == ("undecided", "diverged")
    worse = {"A": [20.0, 21.0, 19.5, 20.0], "x": [30.1, None, 29.6, 30.05]}
    assert only(make, worse, diverged={"x": [2]}).variants[0].verdict == "not met"
    assert only(make, values).variants[0].verdict == "met"


def test_undecided_says_how_many_seeds_would_decide(make: Make) -> None:
    verdict = only(make, {"A": [20.0, 20.0, 20.0], "x": [20.0, 20.9, 20.2]})
    found = verdict.variants[0]
    logs = np.log(np.array([20.0, 20.9, 20.2]) / 20)
    distance = math.log(1.05) - logs.mean()
    needed = found.seeds_needed
    assert needed is not None
    assert stats.t.ppf(0.975, needed - 1) * logs.std(ddof=1) / math.sqrt(needed) < distance
    assert stats.t.ppf(0.975, needed - 2) * logs.std(ddof=1) / math.sqrt(needed - 1) >= distance
    assert f"about {needed} seeds" in found.reason
    near = only(make, {"A": [20.0] * 3, "x": [20.0, 21.9, 21.05]})
    assert near.variants[0].seeds_needed is None and "more than 100" in near.variants[0].reason


def test_an_estimate_on_the_margin_says_so(make: Make) -> None:
    verdict = only(make, {"A": [10.0, 10.0, 10.0], "x": [10.0, 11.0, 12.0]}, criterion="difference <= 1")
    assert verdict.variants[0].code == "on-margin"
    assert "margin itself" in verdict.variants[0].reason


def test_and_needs_all_conditions_and_fails_by_one(make: Make, condition: Callable) -> None:
    both = (condition("ratio <= 1.05"), condition("difference <= 10", "memory"))
    values = {"A": [20.0, 21.0, 19.5], "x": [20.1, 21.0, 19.6]}

    def verdict(memory: list[float]) -> str:
        others = {"memory": {"A": [100.0, 101.0, 100.0], "x": memory}}
        return only(make, values, conditions=both, others=others).variants[0].verdict

    assert verdict([101.0, 102.5, 101.0]) == "met"
    assert verdict([151.0, 152.5, 151.0]) == "not met"
    assert verdict([95.0, 130.0, 101.0]) == "undecided"


def test_a_control_that_must_fail_and_is_told_apart_makes_the_comparison_sensitive(make: Make) -> None:
    arms = {"A": [20.0, 21.0, 19.5], "x": [20.1, 21.0, 19.6], "broken": [40.0, 41.0, 42.0]}
    verdict = only(make, arms, fail=("broken",))
    assert verdict.sensitive is True
    assert verdict.variants[0].verdict == "met"
    assert len(verdict.variants) == 1 and verdict.variants[0].level == pytest.approx(0.95)


def test_a_control_that_is_not_told_apart_withholds_every_verdict(make: Make) -> None:
    arms = {"A": [20.0, 21.0, 19.5], "x": [20.1, 21.0, 19.6], "broken": [20.0, 23.0, 19.0]}
    verdict = only(make, arms, fail=("broken",))
    assert verdict.sensitive is False
    assert (verdict.variants[0].verdict, verdict.variants[0].code) == ("undecided", "not-sensitive")
    assert verdict.text.startswith("Not sensitive, no verdict")


def test_a_pending_control_withholds_the_verdict_without_calling_the_comparison_blind(make: Make) -> None:
    arms = {"A": [20.0, 21.0, 19.5], "x": [20.1, 21.0, 19.6], "broken": [None, None, None]}
    verdict = only(make, arms, fail=("broken",))
    assert verdict.sensitive is None
    assert (verdict.variants[0].verdict, verdict.variants[0].code) == ("undecided", "control-pending")


def test_one_seed_leaves_a_control_open_and_does_not_call_the_comparison_blind(make: Make) -> None:
    verdict = only(make, {"A": [20.0], "x": [20.1], "broken": [40.0]}, fail=("broken",))
    assert verdict.sensitive is None and verdict.controls[0].told is None
    assert "cannot be told apart by one seed" in verdict.controls[0].text
    assert (verdict.variants[0].verdict, verdict.variants[0].code) == ("undecided", "one-seed")


def test_where_an_improvement_is_asked_a_control_equal_to_the_baseline_shows_nothing(make: Make) -> None:
    arms = {"A": [20.0, 21.0, 19.5], "x": [15.0, 15.8, 14.6], "broken": [20.01, 20.97, 19.51]}
    verdict = only(make, arms, fail=("broken",), criterion="ratio <= 0.9")
    assert verdict.controls[0].verdict.verdict == "not met"
    assert verdict.sensitive is False
    harmed = only(make, arms | {"broken": [30.0, 31.0, 30.0]}, fail=("broken",), criterion="ratio <= 0.9")
    assert harmed.sensitive is True and harmed.variants[0].verdict == "met"


def test_a_control_that_must_pass(make: Make) -> None:
    arms = {"A": [20.0, 21.0, 19.5], "x": [20.1, 21.0, 19.6], "again": [20.0, 21.05, 19.55]}
    assert only(make, arms, passing=("again",)).sensitive is True
    assert only(make, arms | {"again": [30.0, 31.0, 29.0]}, passing=("again",)).sensitive is False


def test_planned_arms_are_named_and_not_part_of_the_family(make: Make) -> None:
    arms = {"A": [20.0, 21.0, 19.5], "x": [20.1, 21.0, 19.6], "later": [None] * 3}
    verdict = only(make, arms, planned=("later",))
    assert verdict.variant("later").code == "planned"
    assert verdict.variant("x").level == pytest.approx(0.95)


def test_a_mark_on_the_metric_chooses_the_best_value(make: Make, condition: Callable) -> None:
    study, results = make(
        {"A": [20.0, 20.0, 20.1], "x": [20.0, 20.2, 20.1]},
        conditions=[condition("ratio <= 1.05", "val/perplexity@best")],
    )
    for arm in results.arms:
        value = arm.values["val/perplexity"]
        object.__setattr__(value, "best", value.last * (0.5 if arm.experiment == "A" else 1.0))
    assert judge(study, results)[0].variants[0].verdict == "not met"


def test_a_verdict_is_plain_data(make: Make) -> None:
    verdict = only(make, {"A": [20.0, 21.0, 19.5], "x": [20.1, 21.0, 19.6]})
    assert json.loads(json.dumps(verdict.as_dict()))["variants"][0]["verdict"] == "met"


@pytest.mark.parametrize("n", [3, 5])
def test_false_verdicts_over_many_studies_stay_below_alpha(make: Make, n: int) -> None:
    """Three variants with a true ratio of exactly the margin: any met or not met is false."""
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(300):
        base = rng.normal(20, 0.5, size=n)
        arms = {"A": list(base)}
        for name in "xyz":
            arms[name] = list(base * 1.05 * np.exp(rng.normal(0, 0.02, size=n)))
        wrong += any(variant.verdict != "undecided" for variant in only(make, arms).variants)
    assert wrong / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_an_exploratory_comparison_without_criterion_shows_effects_and_gives_no_verdict(make: Make) -> None:
    study, results = make({"A": [20.0, 21.0, 19.5], "x": [30.1, 31.0, 29.6]}, exploratory=True)
    bare = replace(study.comparisons[0], criterion=Criterion(text="", conditions=()))
    verdict = judge(replace(study, comparisons=(bare,)), results)[0]
    variant = verdict.variants[0]
    assert (variant.verdict, variant.code) == ("undecided", "exploratory")
    assert variant.conditions[0].point == pytest.approx(math.exp(np.log([30.1 / 20, 31 / 21, 29.6 / 19.5]).mean()))
    assert variant.conditions[0].low < variant.conditions[0].point < variant.conditions[0].high
    assert verdict.text.startswith("Exploratory") and " met" not in verdict.text
    negative = make({"A": [0.0, 0.1, 0.2], "x": [-1.0, 1.0, 2.0]})
    assert (
        judge(replace(negative[0], comparisons=(bare,)), negative[1])[0].variants[0].conditions[0].quantity
        == "difference"
    )


POSITIVE = st.floats(0.5, 50.0).map(lambda value: round(value, 3))


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(POSITIVE, POSITIVE, POSITIVE), min_size=2, max_size=5), unit=st.floats(0.01, 100.0))
def test_units_change_no_verdict(make: Make, rows: list[tuple[float, float, float]], unit: float) -> None:
    arms = {name: [row[index] for row in rows] for index, name in enumerate("Axy")}
    scaled = {name: [value * unit for value in values] for name, values in arms.items()}
    one, other = (judge(*made)[0] for made in (make(arms), make(scaled)))
    for ours, theirs in zip(one.variants, other.variants, strict=True):
        assert ours.conditions[0].point == pytest.approx(theirs.conditions[0].point)
        if abs(2 * ours.p - (1 - (ours.level or 0))) > 1e-6:
            assert ours.verdict == theirs.verdict


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=5))
def test_met_and_not_met_are_what_the_interval_says(make: Make, rows: list[tuple[float, float]]) -> None:
    study, results = make({"A": [row[0] for row in rows], "x": [row[1] for row in rows]})
    found = judge(study, results)[0].variants[0]
    condition = found.conditions[0]
    if condition.low is None:
        assert len(rows) == 1 and found.verdict == "undecided"
    elif min(abs(condition.low - 1.05), abs(condition.high - 1.05)) > 1e-9:
        expected = "met" if condition.high <= 1.05 else "not met" if condition.low > 1.05 else "undecided"
        assert found.verdict == expected

"""Intervals and p-values against scipy's t test, closed forms, and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ablab.analysis.intervals import (
    MOST_SEEDS,
    Sample,
    half_width,
    log_ratios,
    seeds_to_decide,
    student_below,
    student_quantile,
)

NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12).filter(lambda v: np.std(v) > 1e-3)


@settings(max_examples=60, deadline=None)
@given(NUMBERS, st.floats(0.5, 0.999))
def test_interval_is_that_of_a_one_sample_t_test(values: list[float], level: float) -> None:
    interval = Sample(values=tuple(values)).interval(level)
    reference = stats.ttest_1samp(values, 0.0).confidence_interval(level)
    assert interval == pytest.approx((reference.low, reference.high), rel=1e-9, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(NUMBERS, st.floats(-1e3, 1e3))
def test_p_values_are_those_of_one_sided_t_tests(values: list[float], margin: float) -> None:
    sample = Sample(values=tuple(values))
    assert sample.p_below(margin) == pytest.approx(stats.ttest_1samp(values, margin, alternative="less").pvalue)
    assert sample.p_above(margin) == pytest.approx(stats.ttest_1samp(values, margin, alternative="greater").pvalue)


@settings(max_examples=60, deadline=None)
@given(NUMBERS, st.floats(-1e3, 1e3), st.floats(0.5, 0.99))
def test_interval_leaves_the_margin_out_exactly_where_twice_the_p_is_below_alpha(
    values: list[float], margin: float, level: float
) -> None:
    sample = Sample(values=tuple(values))
    low, high = sample.interval(level) or (math.nan, math.nan)
    p = 2 * min(sample.p_below(margin), sample.p_above(margin))
    if abs(p - (1 - level)) > 1e-9:
        assert (margin < low or margin > high) == (p < 1 - level)


def test_two_values_follow_the_cauchy_distribution() -> None:
    # One degree of freedom: t is Cauchy, whose distribution is arctan.
    assert student_below(1.0, 1) == pytest.approx(0.75)
    assert student_quantile(0.975, 1) == pytest.approx(math.tan(math.pi * 0.475))
    assert Sample(values=(1.0, 3.0)).interval(0.5) == pytest.approx((1.0, 3.0))


def test_one_random_value_has_no_interval_and_shows_nothing() -> None:
    sample = Sample(values=(0.2,))
    assert sample.interval(0.95) is None and sample.sd is None
    assert sample.p_below(100.0) == sample.p_above(-100.0) == 1.0


def test_a_constant_is_its_own_interval_and_certain() -> None:
    sample = Sample(values=(0.2,), constant=True)
    assert sample.interval(0.95) == (0.2, 0.2)
    assert (sample.p_below(0.3), sample.p_above(0.3)) == (0.0, 1.0)
    assert (sample.p_below(0.2), sample.p_above(0.2)) == (1.0, 1.0)


def test_equal_values_have_no_spread_in_spite_of_rounding() -> None:
    assert Sample(values=(0.1 + 0.2, 0.3, 0.3)).sd == 0


def test_values_that_cancel_have_a_mean_of_zero_in_spite_of_rounding() -> None:
    pairs = [(0.119, 0.106), (0.106, 0.267), (0.267, 0.187), (0.187, 0.119)]
    differences = tuple(a - b for a, b in pairs)
    assert math.fsum(differences) != 0 and Sample(values=differences).mean == 0
    assert Sample(values=(1e-30, 2e-30)).mean == pytest.approx(1.5e-30), "small is not rounding"


def test_log_ratios_refuse_what_has_no_logarithm() -> None:
    assert log_ratios([(2.0, 4.0)]) == pytest.approx((math.log(2),))
    with pytest.raises(ValueError, match="positive"):
        log_ratios([(2.0, 0.0)])


@pytest.mark.parametrize(("sd", "distance", "level"), [(1.0, 0.5, 0.95), (0.03, 0.02, 0.99), (1.0, 0.21, 0.9)])
def test_seeds_to_decide_is_the_first_number_whose_interval_is_narrow_enough(
    sd: float, distance: float, level: float
) -> None:
    needed = seeds_to_decide(sd, distance, level)
    assert needed is not None and needed > 2
    for n, enough in ((needed, True), (needed - 1, False)):
        width = stats.t.ppf((1 + level) / 2, n - 1) * sd / math.sqrt(n)
        assert bool(width < distance) is enough


def test_seeds_to_decide_says_when_a_hundred_are_too_few() -> None:
    assert half_width(1.0, MOST_SEEDS, 0.95) > 0.19
    assert seeds_to_decide(1.0, 0.19, 0.95) is None
    assert seeds_to_decide(1.0, 0.0, 0.95) is None


@pytest.mark.parametrize("n", [3, 5])
def test_coverage_is_ninety_five_percent_at_few_seeds(n: int) -> None:
    draws = np.random.default_rng(7).normal(1.0, 0.1, size=(4000, n))
    hit = 0
    for row in draws:
        low, high = Sample(values=tuple(row)).interval(0.95) or (math.nan, math.nan)
        hit += low <= 1.0 <= high
    # Three standard errors of a share of 0.95 over 4000 draws.
    assert hit / len(draws) == pytest.approx(0.95, abs=0.0104)

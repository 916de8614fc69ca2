"""An arm leads only where paired intervals say so against every other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ablab.analysis.leading import is_better, leader
from tests.analysis.conftest import METRIC

Make = Callable[..., tuple[Any, Any]]
BASE = [10.0, 20.0, 30.0, 40.0]


def better(make: Make, arms: dict[str, Any], **options: Any) -> str | None:
    _, results = make(arms, **options)
    return leader(results, list(arms), METRIC)


def test_pairing_sees_a_difference_far_smaller_than_the_spread_over_seeds(make: Make) -> None:
    close = [1.05 * value * wiggle for value, wiggle in zip(BASE, (1.0, 1.001, 0.999, 1.0), strict=True)]
    assert better(make, {"a": BASE, "b": close}) == "a"


def test_one_noisy_arm_takes_the_mark_from_all(make: Make) -> None:
    close = [1.05 * value for value in BASE]
    noisy = [9.0, 30.0, 25.0, 60.0]
    assert better(make, {"a": BASE, "b": close, "c": noisy}) is None
    _, results = make({"a": BASE, "b": close, "c": noisy})
    assert is_better(results, "a", "b", METRIC)
    assert not is_better(results, "b", "a", METRIC)


def test_one_seed_supports_nothing_and_one_arm_leads_nobody(make: Make) -> None:
    assert better(make, {"a": [1.0], "b": [100.0]}) is None
    assert better(make, {"a": BASE}) is None


def test_constants_decide_by_themselves(make: Make) -> None:
    arms = {"a": [1.0, 1.0], "b": [2.0, 2.0]}
    assert better(make, arms, constants=("a", "b")) == "a"
    assert better(make, {"a": [1.0, 1.0], "b": [1.0, 1.0]}, constants=("a", "b")) is None


def test_higher_is_better_where_the_metric_says_so_and_values_may_be_negative(make: Make) -> None:
    _, results = make({"a": [-1.0, -2.0, -3.0], "b": [1.1, 0.0, -1.05]})
    assert leader(results, ["a", "b"], METRIC, direction="higher") == "b"
    assert leader(results, ["a", "b"], METRIC, direction="lower") == "a"


def test_a_seed_that_diverged_counts_against_its_arm(make: Make) -> None:
    arms = {"a": [1.0, 1.01, 1.0, None], "b": [2.0, 2.02, 2.01, 2.0]}
    assert better(make, arms) == "a"
    assert better(make, arms, diverged={"a": [4]}) is None


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_the_rule_is_the_interval_itself(make: Make, level: float) -> None:
    """Agrees with drawing the interval of the log ratios and looking whether it holds zero."""
    import math

    from scipy import stats

    for shift in (1.01, 1.03, 1.05, 1.08, 1.2):
        other = [value * shift * wiggle for value, wiggle in zip(BASE, (1.02, 0.98, 1.03, 1.0), strict=True)]
        logs = [math.log(b / a) for a, b in zip(BASE, other, strict=True)]
        low, _ = stats.t.interval(level, len(logs) - 1, loc=sum(logs) / 4, scale=stats.sem(logs))
        _, results = make({"a": BASE, "b": other})
        assert is_better(results, "a", "b", METRIC, confidence=level) == (low > 0)

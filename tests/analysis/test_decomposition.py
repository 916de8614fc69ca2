"""Parts of an ablation add up to the whole."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from ablab.analysis.decomposition import decompose, pairwise_effects


def test_parts_multiply_to_the_whole_and_shares_sum_to_one(make: Callable) -> None:
    _, results = make({"A": [20.0, 21.0, 19.5], "B": [22.0, 23.3, 21.4], "C": [25.0, 26.1, 24.4]})
    found = decompose(results, ("A", "B", "C"), metric="val/perplexity")
    assert found is not None and found.seeds == (1, 2, 3)
    assert math.prod(part.effect for part in found.parts) == pytest.approx(found.whole.effect)
    assert sum(part.share for part in found.parts) == pytest.approx(1.0)
    assert found.whole.effect == pytest.approx((25 * 26.1 * 24.4 / 20 / 21 / 19.5) ** (1 / 3))
    linear = decompose(results, ("A", "B", "C"), metric="val/perplexity", quantity="difference")
    assert sum(part.effect for part in linear.parts) == pytest.approx(linear.whole.effect)


def test_only_seeds_that_every_arm_has_count(make: Callable) -> None:
    _, results = make({"A": [20.0, 21.0, 19.5], "B": [22.0, None, 21.4], "C": [25.0, 26.1, 24.4]})
    assert decompose(results, ("A", "B", "C"), metric="val/perplexity").seeds == (1, 3)
    assert decompose(results, ("A", "B"), metric="other") is None


def test_a_whole_that_cannot_be_told_from_nothing_has_no_shares(make: Callable) -> None:
    _, results = make({"A": [20.0, 21.0, 19.5], "B": [24.0, 25.0, 23.0], "C": [20.2, 20.7, 19.6]})
    found = decompose(results, ("A", "B", "C"), metric="val/perplexity")
    assert [part.share for part in found.parts] == [None, None]


def test_the_logs_decomposition(make: Callable) -> None:
    study, results = make({"GPT-01": [4.27], "GPT-02": [4.69], "GPT-03": [4.97]})
    found = {(part.start, part.to): part.effect for part in pairwise_effects(results, study.comparisons[0])}
    assert found == pytest.approx(
        {("GPT-01", "GPT-02"): 4.69 / 4.27, ("GPT-01", "GPT-03"): 4.97 / 4.27, ("GPT-02", "GPT-03"): 4.97 / 4.69}
    )

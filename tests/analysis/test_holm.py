"""Holm's procedure against an independent definition (closed testing) and by simulation."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ablab.analysis.holm import holm


def closed_bonferroni(p_two_sided: list[float], alpha: float) -> list[bool]:
    """Reject a hypothesis when Bonferroni rejects every intersection it is part of (closure principle)."""
    everyone = range(len(p_two_sided))
    subsets = list(chain.from_iterable(combinations(everyone, size) for size in range(1, len(p_two_sided) + 1)))
    rejected = {s: min(p_two_sided[i] for i in s) < alpha / len(s) for s in subsets}
    return [all(verdict for subset, verdict in rejected.items() if i in subset) for i in everyone]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=6), st.sampled_from([0.01, 0.05, 0.2]))
def test_decisions_are_those_of_closed_testing(p: list[float], alpha: float) -> None:
    assert [step.decided for step in holm(p, alpha)] == closed_bonferroni([2 * value for value in p], alpha)


def test_levels_and_ranks_by_hand() -> None:
    steps = holm([0.02, 0.001, 0.029], 0.06)
    assert [step.rank for step in steps] == [2, 1, 3]
    assert [step.alpha for step in steps] == pytest.approx([0.03, 0.02, 0.06])
    # 2 x 0.02 is not below 0.03, and so the third is not reached although 2 x 0.029 is below 0.06.
    assert [step.decided for step in steps] == [False, True, False]
    assert [step.reached for step in steps] == [True, True, False]
    assert steps[1].level == pytest.approx(0.98)


def test_after_the_first_undecided_all_later_ones_are_undecided() -> None:
    steps = holm([0.02, 0.0201, 0.0202], 0.05)
    assert not any(step.decided for step in steps)
    alone = holm([0.0202], 0.05)
    assert alone[0].decided


def test_no_variants_no_steps() -> None:
    assert holm([], 0.05) == []


@pytest.mark.parametrize("n", [3, 5])
def test_family_wise_error_stays_below_alpha(n: int) -> None:
    """Four variants whose true effect is the margin itself: any decision is an error."""
    rng = np.random.default_rng(11)
    data = rng.normal(size=(3000, 4, n))
    t = data.mean(axis=2) / (data.std(axis=2, ddof=1) / np.sqrt(n))
    below = stats.t.cdf(t, n - 1)
    smaller = np.minimum(below, 1 - below)
    wrong = sum(any(step.decided for step in holm(list(row), 0.05)) for row in smaller)
    assert wrong / len(data) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(data))
    # A plain test of each at alpha would be wrong far more often: the simulation can see a failure.
    plain = np.mean((2 * smaller < 0.05).any(axis=1))
    assert plain > 0.12

"""Curves, thinning that keeps extremes, and gaps at equal steps only."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from ablab.analysis.curves import curves, gap, gaps, thinned


def test_curves_come_from_step_and_validation_events() -> None:
    events = [
        {"e": "start", "step": 0},
        {"e": "step", "step": 10, "t": 1.0, "loss": 4.0, "lr": 1e-3, "balance": 0.1, "attempt": 1},
        {"e": "validation", "step": 10, "values": {"val/loss": 4.5}},
        {"e": "step", "step": 20, "loss": 3.0, "lr": 5e-4},
        {"e": "validation", "step": 20, "values": {"val/loss": 3.5}},
    ]
    found = curves(events)
    assert found["train/loss"].steps == (10, 20) and found["train/loss"].values == (4.0, 3.0)
    assert found["lr"].values == (1e-3, 5e-4)
    assert found["train/balance"].values == (0.1,)
    assert found["val/loss"].values == (4.5, 3.5)
    assert set(found) == {"train/loss", "lr", "train/balance", "val/loss"}


def test_thinning_keeps_ends_spikes_and_what_is_no_number() -> None:
    noise = random.Random(5)
    values = [noise.random() for _ in range(20_000)]
    values[777], values[12_345], values[15_001] = 50.0, -50.0, math.nan
    kept = thinned(range(20_000), values, points=300)
    assert len(kept) <= 300 and kept == sorted(kept)
    assert {0, 777, 12_345, 15_001, 19_999} <= set(kept)
    assert thinned([1, 2, 3], [0.0, 1.0, 2.0]) == [1, 2, 3]


def test_validation_points_are_never_thinned() -> None:
    events = [{"e": "validation", "step": s, "values": {"val/loss": float(s % 7)}} for s in range(2000)]
    assert len(curves(events, points=50)["val/loss"].steps) == 2000


def test_a_gap_is_taken_at_equal_steps_only(curve: Callable) -> None:
    # The log compared 20,000 steps of one arm with 19,000 of the other.
    base = curve({18_000: 5.0, 19_000: 4.8})
    own = curve({18_000: 5.5, 20_000: 4.9})
    found = gap(base, own, variant="x", seed=1)
    assert found.steps == (18_000,) and found.values == pytest.approx((1.1,))
    assert found.last == (18_000, pytest.approx(1.1))
    assert gap(base, curve({20_000: 4.9}), variant="x", seed=1).last is None
    assert gap(base, own, variant="x", seed=1, quantity="difference").values == pytest.approx((0.5,))


def test_gaps_follow_the_comparison(make: Callable, record: Callable, curve: Callable) -> None:
    study, results = make({"A": [20.0], "x": [21.0]})
    runs = {
        "a": record("a", curves={"val/perplexity": curve({1: 30.0, 2: 20.0})}),
        "b": record("b", curves={"val/perplexity": curve({2: 21.0, 3: 20.0})}),
    }
    arms = tuple(replace(arm, runs={"train": "a" if arm.experiment == "A" else "b"}) for arm in results.arms)
    found = gaps(replace(results, arms=arms, runs=runs), study.comparisons[0])
    assert [(g.variant, g.seed, g.steps) for g in found] == [("x", 1, (2,))]
    assert found[0].values == pytest.approx((1.05,))

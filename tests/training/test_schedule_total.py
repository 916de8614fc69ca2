"""A schedule that is made for another total than the run's follows its own."""

from __future__ import annotations

import pytest

from ablab.contract.training import Schedule
from ablab.training.schedule import factor


@pytest.mark.parametrize("name", ["linear", "cosine", "cosine-restarts", "warmup-stable-decay"])
def test_a_schedule_for_other_steps_is_that_of_a_run_of_so_many(name: str) -> None:
    told = Schedule(name=name, warmup_ratio=0.1, steps=400)
    own = Schedule(name=name, warmup_ratio=0.1)
    for step in range(100):
        assert factor(told, step, 100) == factor(own, step, 400)
    short = Schedule(name=name, warmup_ratio=0.1, steps=50)
    assert {factor(short, step, 100) for step in range(50, 100)} == {factor(short, 50, 100)}
    assert factor(short, 99, 100) == pytest.approx(0.0, abs=1e-12)


def test_the_total_a_log_told_its_scheduler_keeps_the_rate_up() -> None:
    """Samples x epochs in place of steps: after the last of 6,228 steps the cosine still stands near its peak."""
    told = Schedule(name="cosine", steps=12457 * 4)
    assert factor(told, 6227, 6228) > 0.96
    assert factor(Schedule(name="cosine"), 6227, 6228) < 1e-6

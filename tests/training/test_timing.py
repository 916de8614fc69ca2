import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.training.timing import Forecast, StepTimes


def test_warm_up_is_left_out_and_said():
    times = StepTimes()
    for seconds in [5.0] * 3 + [0.1] * 27:
        times.add(seconds, 100.0)
    found = times.summary(batch=8)
    assert found["excluded"] == 3 and found["counted"] == 27
    assert [found["median"], found["mean"]] == pytest.approx([0.1, 0.1])
    assert found["tokens_per_second"] == pytest.approx(1000) and found["samples_per_second"] == pytest.approx(80)


def test_never_more_than_a_hundred_steps_are_left_out():
    times = StepTimes()
    for _ in range(5000):
        times.add(0.1, 1.0)
    assert times.summary(batch=1)["excluded"] == 100


@given(st.lists(st.lists(st.floats(0.001, 0.1), min_size=1, max_size=5), min_size=3, max_size=6), st.floats(0, 1))
def test_a_device_that_runs_behind_is_timed_on_average(windows, wait):
    times = StepTimes(waits=False)
    for window in windows:
        for seconds in window:
            times.add(seconds, 1.0)
        times.settle(wait)
    total = sum(map(sum, windows)) + wait * len(windows)
    assert sum(times.seconds) == pytest.approx(total)
    assert len(times.seconds) == len(times.weights) == sum(map(len, windows))


def test_settling_changes_nothing_where_steps_are_waited_for():
    times = StepTimes()
    times.add(0.1, 1.0)
    times.settle(5.0)
    assert list(times.seconds) == [0.1]


@given(steps=st.integers(1, 60), every=st.one_of(st.none(), st.integers(1, 70)), price=st.floats(0.1, 10))
def test_a_forecast_counts_the_validations_that_will_happen(steps, every, price):
    forecast = Forecast(steps=steps, every=every)
    forecast.validated(price)
    due = {step for step in range(1, steps + 1) if step == steps or (every and step % every == 0)}
    for step in range(steps + 1):
        left, share = forecast.estimate(step, 0.5)
        assert left == pytest.approx((steps - step) * 0.5 + price * len([d for d in due if d > step]))
        assert 0 <= share <= 1
    assert forecast.estimate(steps, 0.5) == (0, 1.0)


def test_percentile_lies_between_median_and_maximum():
    times = StepTimes()
    for n in range(200):
        times.add(n / 1000, 1.0)
    found = times.summary(batch=1)
    kept = [n / 1000 for n in range(20, 200)]
    assert found["median"] == statistics.median(kept) and kept[170] <= found["p95"] <= kept[-1]


def test_seconds_waited_for_data_leave_warm_up_out_too():
    times = StepTimes()
    for i in range(50):
        times.add(1.0, 8.0, waited=0.9 if i < 5 else 0.25)
    assert times.summary(8)["waited"] == pytest.approx(0.25)
    behind = StepTimes(waits=False)
    for _ in range(4):
        behind.add(0.1, 1.0, waited=0.05)
    behind.settle(0.4)
    behind.add(0.1, 1.0, waited=5.0)
    assert behind.summary(1)["waited"] == pytest.approx(0.05), "of the steps that are counted"

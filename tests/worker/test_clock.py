import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.contract.result import TIMES
from ablab.worker import clock as clocks
from ablab.worker.clock import Clock, process_began


class Ticks:
    """A clock that moves when told."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(clocks.time, "monotonic", lambda: self.now)


def test_nesting_pauses_the_outer_name(monkeypatch):
    ticks = Ticks(monkeypatch)
    clock = Clock(90.0)
    clock.base("other")
    with clock.time("validation"):
        ticks.now += 2
        with clock.time("data"):
            ticks.now += 3
        ticks.now += 4
    ticks.now += 5
    named = {name: seconds for name, seconds in clock.totals().items() if seconds}
    assert named == {"start-up": 10.0, "validation": 6.0, "data": 3.0, "other": 5.0}


@given(st.lists(st.tuples(st.sampled_from(TIMES), st.floats(0, 10), st.integers(0, 3)), max_size=20))
def test_names_always_sum_to_the_wall_clock(steps):
    with pytest.MonkeyPatch.context() as patch:
        ticks = Ticks(patch)
        clock = Clock(100.0)
        open_blocks = []
        for name, seconds, close in steps:
            block = clock.time(name)
            block.__enter__()
            open_blocks.append(block)
            ticks.now += seconds
            for _ in range(min(close, len(open_blocks))):
                open_blocks.pop().__exit__(None, None, None)
        assert sum(clock.totals().values()) == pytest.approx(ticks.now - 100.0)


def test_an_error_in_a_block_ends_its_time(monkeypatch):
    ticks = Ticks(monkeypatch)
    clock = Clock(100.0)
    with pytest.raises(ValueError), clock.time("data"):
        raise ValueError
    ticks.now += 1
    assert clock.totals()["data"] == 0


def test_an_unknown_name_is_refused():
    with pytest.raises(KeyError, match="lunch"), Clock(0.0).time("lunch"):
        pass


def test_a_process_began_before_now():
    assert 0 < time.monotonic() - process_began() < 24 * 3600

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.contract.units import duration, figure, percent, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.84, "0.8 s"), (9.96, "10 s"), (45.2, "45 s"), (725, "12m05s"), (11230, "3h07m"), (187200, "2d04h"),
     (None, "—"), (math.inf, "—")],
)  # fmt: skip
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (513.8 * 2**20, "514 MiB"), (None, "—")]
)
def test_size(count: float | None, text: str) -> None:
    assert size(count) == text


@given(st.floats(min_value=1e-9, max_value=1e12))
def test_a_figure_reads_back_as_the_number(value: float) -> None:
    assert float(figure(value, digits=6).replace(",", "")) == pytest.approx(value, rel=1e-5)


def test_percent() -> None:
    assert percent(0.256) == "26 %"
    assert percent(None) == "—"

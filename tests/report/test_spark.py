"""Drawings in text: their size, their extremes, and numbers that are none."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ablab.report.spark import bar, braille, sparkline

FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(FLOATS, max_size=200), st.integers(1, 60))
def test_a_sparkline_has_a_column_a_value_or_as_many_as_fit(values: list[float], width: int) -> None:
    assert len(sparkline(values, width=width)) == min(width, len(values))


def test_a_sparkline_shows_where_the_curve_goes() -> None:
    assert sparkline([4.0, 3.0, 2.0, 1.0]) == "█▆▃▁"
    assert sparkline([1.0, math.nan, 1.0]) == "▄·▄"
    assert sparkline([1.0, 2.0], limits=(1.0, 8.0)) == "▁▂"
    assert sparkline([]) == ""


@given(st.lists(st.lists(st.tuples(FLOATS, FLOATS), max_size=30), max_size=4), st.integers(1, 40), st.integers(1, 12))
def test_a_braille_box_has_its_size_whatever_it_draws(
    lines: list[list[tuple[float, float]]], width: int, height: int
) -> None:
    drawn = braille(lines, width=width, height=height)
    assert drawn == [] or ([len(row) for row in drawn] == [width] * height)


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    drawn = braille([[(0.0, 0.0), (1.0, 1.0)]], width=4, height=2)
    assert drawn[1][0] != "⠀" and drawn[0][3] != "⠀"
    assert drawn[0][0] == "⠀" and drawn[1][3] == "⠀"
    assert braille([[(0.0, 1.0), (1.0, 1.0)]], width=2, height=1) == ["⠤⠤"]


@given(st.floats(), st.integers(0, 50))
def test_a_bar_is_as_wide_as_asked(share: float, width: int) -> None:
    assert len(bar(share, width)) == width


def test_a_bar_fills_with_its_share() -> None:
    assert [bar(share, 4) for share in (0.0, 0.5, 1.0, 7.0)] == ["    ", "██  ", "████", "████"]
    assert bar(0.03, 4) == "▏   "

"""The grammar of criteria, and durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.study.criteria import CriterionError, parse_criterion
from ablab.study.durations import parse_duration


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "val/loss", "test/word_perplexity", "F1@5"]),
            st.sampled_from(["ratio", "difference", "value"]),
            st.sampled_from(["<=", "<", ">=", ">"]),
            st.floats(allow_nan=False, allow_infinity=False),
            st.sampled_from(["", " ", "  "]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_criterion_reads_back_as_it_was_written(rows):
    text = " and ".join(
        f"{metric + ' ' if metric else ''}{quantity}{space}{operator}{space}{number!r}"
        for metric, quantity, operator, number, space in rows
    )
    found = parse_criterion(text, metric="val/main")
    assert [(c.metric, c.quantity, c.operator, c.number) for c in found.conditions] == [
        (metric or "val/main", quantity, operator, number) for metric, quantity, operator, number, _ in rows
    ]


@pytest.mark.parametrize(
    "text",
    ["", "ratio", "ratio 1", "ratio <= ", "ratio <= x", "ratio == 1", "ratio <= inf", "ratios <= 1", "a b ratio < 1"],
)
def test_what_is_no_criterion(text):
    with pytest.raises(CriterionError):
        parse_criterion(text, metric="val/loss")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("4h31m27s", 16287), ("4h31m", 16260), ("20 min", 1200), ("1.5 h", 5400), ("2 days", 172800), ("90", None),
        ("1:30:00", 5400), ("0:45", 2700), ("1 hour 5 minutes", 3900), ("30s", 30), ("1d, 2h", 93600),
        (90, 90), (0.5, 0.5),
    ],
)  # fmt: skip
def test_durations(text, seconds):
    if seconds is None:
        with pytest.raises(ValueError, match="write 4h31m"):
            parse_duration(text)
    else:
        assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "4h later", "h", "-3", "4x", -1, 1e12, "1:99", "٣h"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_every_spelling_of_a_duration_agrees(hours, minutes, seconds):
    total = hours * 3600 + minutes * 60 + seconds
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == total
    assert parse_duration(f"{hours}:{minutes:02}:{seconds:02}") == total
    assert parse_duration(f"{hours} hours, {minutes} min, {seconds} seconds") == total

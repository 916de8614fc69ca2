"""Exact match, ANLS, relaxed accuracy, containment and edit distance on hand-made cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.metrics.anls import anls
from ablab.metrics.containment import contains
from ablab.metrics.edits import levenshtein
from ablab.metrics.exact import exact_match
from ablab.metrics.relaxed import number, relaxed


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("Yes.", "yes", True), (" T-shirt ", "tshirt", True), ("two", "2", False), ("", "yes", False), ("no", "yes", 0)],
)
def test_exact_match_ignores_case_and_punctuation_alone(one: str, other: str, same: bool) -> None:
    assert exact_match(one, other) == same


@pytest.mark.parametrize(("one", "other", "distance"), [("kitten", "sitting", 3), ("", "abc", 3), ("한글", "한국", 1)])
def test_edit_distance(one: str, other: str, distance: int) -> None:
    assert levenshtein(one, other) == levenshtein(other, one) == distance


@given(st.text("ab", max_size=8), st.text("ab", max_size=8), st.text("ab", max_size=8))
def test_edit_distance_is_a_metric(a: str, b: str, c: str) -> None:
    assert (levenshtein(a, b) == 0) == (a == b)
    assert levenshtein(a, c) <= levenshtein(a, b) + levenshtein(b, c)
    assert abs(len(a) - len(b)) <= levenshtein(a, b) <= max(len(a), len(b))


@pytest.mark.parametrize(
    ("said", "answers", "score"),
    [
        ("Hello  World", ["hello world"], 1.0),
        ("helo world", ["hello world"], 10 / 11),
        ("ab", ["abcd"], 0.5),  # exactly one half counts
        ("ab", ["abcde"], 0.0),  # .4 counts nothing
        ("xyz", ["abc", "xyz"], 1.0),
        ("", ["abc"], 0.0),
        ("abc", [], 0.0),
    ],
)
def test_anls_takes_the_best_answer_and_cuts_below_one_half(said: str, answers: list[str], score: float) -> None:
    assert anls(said, answers) == pytest.approx(score)


@pytest.mark.parametrize(
    ("said", "target", "right"),
    [
        ("104", "100", True),
        ("105", "100", True),
        ("105.1", "100", False),
        ("-95", "-100", True),
        ("0.12", "12%", True),
        ("12", "12%", False),  # as published: the percentage is a hundredth
        ("12%", "12%", True),
        ("1,234", "1234", False),  # as published: a number with commas is text
        ("1,234", "1,234", True),
        ("0", "0", True),
        ("0.0", "0", False),  # as published: nothing is within 5 % of nothing
        ("Yes", "yes", True),
        ("yes", "no", False),
        ("", "12", False),
        ("inf", "12", False),
        ("nan", "12", False),
    ],
)
def test_relaxed_accuracy(said: str, target: str, right: bool) -> None:
    assert relaxed(said, target) == right


def test_a_number_is_a_finite_float_or_a_percentage() -> None:
    assert number("50%") == 0.5 and number("1e3") == 1000 and number("1e999") is None and number("twelve") is None


@pytest.mark.parametrize(
    ("said", "answers", "right"),
    [
        ("The sign says STOP here", ["stop"], True),
        ("stop", ["go", "stop"], True),
        ("sto", ["stop"], False),
        ("two\nlines", ["two lines"], True),
        ("anything", [""], False),
        ("", ["stop"], False),
    ],
)
def test_containment(said: str, answers: list[str], right: bool) -> None:
    assert contains(said, answers) == right


def test_formulas_are_contained_without_their_spaces_but_with_their_case() -> None:
    assert contains("so \\frac{a}{b} + X", ["\\frac { a } { b }+X"], spaces=False, case=True)
    assert not contains("\\frac{a}{b} + x", ["\\frac{a}{b}+X"], spaces=False, case=True)

from __future__ import annotations

import pytest

from ablab.metrics.denotation import normalise, same_denotation, says_true


@pytest.mark.parametrize(
    ("said", "target", "same"),
    [
        ("2004", "2004", True),
        ("2004.0", "2004", True),
        ("1e3", "1000", True),
        ("12.5000001", "12.5", True),
        ("12.51", "12.5", False),
        ("2,000", "2000", False),  # as published: a number with commas is text
        ("Beyoncé", "beyonce", True),
        ("“Thriller”", "Thriller", True),
        ("Thriller (album)", "Thriller", True),
        ("Thriller[1]", "thriller.", True),
        ("b|a", "a|b", True),
        ("a||b", "a|b", True),
        ("a|a|b", "a|b", True),
        ("a", "a|b", False),
        ("a|b|c", "a|b", False),
        ("2004-07-05", "2004-7-5", True),
        ("2004-7-xx", "2004-7-5", False),
        ("two", "2", False),
        ("", "2", False),
    ],
)
def test_values_are_compared_not_strings(said: str, target: str, same: bool) -> None:
    assert same_denotation(said, target) == same


def test_normalisation_takes_several_endings_off() -> None:
    assert normalise(' "Foo" (bar) [2]* ') == "foo"
    assert normalise("A–B  c.") == "a-b c"


@pytest.mark.parametrize(
    ("text", "true"), [("True", True), ("It is false.", False), ("true or false", None), ("", None), ("yes", None)]
)
def test_an_answer_that_says_both_or_neither_says_nothing(text: str, true: bool | None) -> None:
    assert says_true(text) is true

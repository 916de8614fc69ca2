from __future__ import annotations

from typing import Any

import pytest

from ablab.metrics.mathematics import extract, normalise_answer, same_answer, same_expression


@pytest.mark.parametrize(
    ("said", "options", "answer"),
    [
        ("The number missing in the sequence is 14.", {"kind": "integer"}, "14"),
        ("First 3, then 4. The answer is 7, since 3 + 4 = 7", {"kind": "integer"}, "7"),
        ("2 + 2 = 5.0? No: Answer: 1,234", {"kind": "integer"}, "1234"),
        ("Luca needs $1.45 to buy both.", {"kind": "float"}, "1.45"),
        ("So \\boxed{\\frac{1}{2}} it is", {}, "\\frac{1}{2}"),
        ("between 2007 and 2008: [2007, 2008]", {"kind": "list"}, "[2007, 2008]"),
        ("The correct answer is (B) 8/11.", {"choices": ("3/11", "8/11")}, "B"),
        ("8/11", {"choices": ("3/11", "8/11")}, "8/11"),
        ("no idea", {"kind": "float"}, ""),
        ("", {"kind": "text"}, ""),
    ],
)
def test_the_answer_is_found_in_a_response(said: str, options: dict[str, Any], answer: str) -> None:
    assert extract(said, **options) == answer


@pytest.mark.parametrize(
    ("extraction", "options", "answer"),
    [
        ("14.0", {"kind": "integer"}, "14"),
        ("14.9", {"kind": "integer"}, "14"),  # as published: cut, not rounded
        ("1.449", {"kind": "float", "precision": 2}, "1.45"),
        ("1.5", {"kind": "float", "precision": 1}, "1.5"),
        ("many", {"kind": "integer"}, None),
        ("(B) 8/11", {"choices": ("3/11", "8/11")}, "8/11"),
        ("A", {"choices": ("3/11", "8/11")}, "3/11"),
        ("8/1", {"choices": ("3/11", "8/11")}, "8/11"),  # the nearest option
        ("", {"choices": ("3/11", "8/11")}, None),  # nothing said is nothing chosen
        ("1e400", {"kind": "integer"}, None),
    ],
)
def test_answers_are_normalised_by_type_and_precision(
    extraction: str, options: dict[str, Any], answer: str | None
) -> None:
    assert normalise_answer(extraction, **options) == answer


def test_equality_is_that_of_texts() -> None:
    assert same_answer("1.50 ".strip(), "1.50") and not same_answer("1.5", "1.50") and not same_answer(None, "None")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("x = 3", "x=3", True), ("$2\\sqrt{3}$", "2\\sqrt{3}", True), (".5", "0.50", True), ("30°", "30", True),
     ("50 cm", "0.5 m", False), ("", "", False)],
)  # fmt: skip
def test_free_answers_are_equal_but_for_their_writing(one: str, other: str, same: bool) -> None:
    assert same_expression(one, other) == same

from __future__ import annotations

import pytest

from ablab.metrics.choice import circular, option_letter, rotations, scienceqa_letter

ANIMALS = ("cat", "dog", "a bird", "black cat")


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("**B**", "B"),
        ("B. dog", "B"),
        ("B) dog", "B"),
        ("(B) dog", "B"),
        ("B: dog", "B"),
        ("The answer is B.", "B"),
        ("The answer is (b).", "B"),
        ("The correct answer is **B**. Here is why: A is a cat.", "B"),
        ("Answer: B", "B"),
        ("정답: B", "B"),
        ("정답은 B입니다.", "B"),
        ("답은 (B) 입니다", "B"),
        ("B입니다", "B"),
        ("B번", "B"),
        ("정답: A", "A"),
        ("dog", "B"),
        ("It is a dog.", "B"),
        ("A bird", "C"),
        ("Answer: A bird", "C"),
        ("The answer is A because it purrs", "A"),
        ("black cat", "D"),
        ("A cat and a dog", None),  # two options named
        ("A", "A"),
        ("A fox runs", None),  # an article, not a letter
        ("E", None),  # no such option
        ("", None),
        ("I do not know", None),
        ("The answer is A. The answer is B.", None),
        ("Because", None),
        ("Dogs", None),
        ("It's C", "C"),
        ("C is correct", "C"),
        ("Therefore \\boxed{C}", "C"),
        ("<answer>A</answer>", "A"),
        ("Both A and B", None),
        ("A is correct", "A"),
        ("B or C", None),
        ("A or B", None),
    ],
)
def test_the_option_that_an_answer_chooses(said: str, letter: str | None) -> None:
    assert option_letter(said, ANIMALS) == letter


def test_options_of_the_same_text_are_not_told_apart_by_it() -> None:
    assert option_letter("red", ("red", "red")) is None
    assert option_letter("B", ("red", "red")) == "B"


def test_options_of_digits_are_not_found_inside_numbers() -> None:
    assert option_letter("12", ("1", "2", "12")) == "C"
    assert option_letter("3", ("13", "30")) is None


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("A", "A"), ("a", None), ("A. yes", "A"), ("A.", None), ("(A)", None), ("The answer is A.", "A"),
        ("The answer is A. The answer is B.", None), ("", None), ("E", "E"), ("F", None),
    ],
)  # fmt: skip
def test_scienceqa_has_the_rule_of_llava(said: str, letter: str | None) -> None:
    assert scienceqa_letter(said) == letter


def test_rotations_show_every_option_at_every_place_once() -> None:
    found = rotations(("w", "x", "y"))
    assert [shown for shown, _ in found] == [("w", "x", "y"), ("x", "y", "w"), ("y", "w", "x")]
    for shown, shift in found:
        assert all(shown[(i - shift) % 3] == option for i, option in enumerate(("w", "x", "y")))


def test_a_question_is_right_only_under_every_rotation() -> None:
    pairs = [(1, True), (2, True), (1, True), (2, False), (3, False), (1, True)]
    assert circular(pairs) == {1: True, 2: False, 3: False}


def test_always_answering_a_is_worth_nothing_in_the_round() -> None:
    options, right = ("w", "x", "y", "z"), 2
    said_a = [("q", (right - shift) % 4 == 0) for _, shift in rotations(options)]
    assert sum(one for _, one in said_a) == 1
    assert circular(said_a) == {"q": False}

from __future__ import annotations

import pytest

from ablab.metrics.pope import pope_scores, says_yes


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("Yes, there is.", True),
        ("No.", False),
        ("no, there is not", False),
        ("There is not a dog. Yes.", False),
        ("Yes. There is no dog.", True),  # only the first sentence counts
        ("Nothing", True),  # as published: anything without no or not is a yes
        ("", None),
        (" . ", None),
    ],
)
def test_the_first_sentence_says_yes_unless_it_says_no(text: str, yes: bool | None) -> None:
    assert says_yes(text) is yes


def test_scores_are_those_of_the_confusion_matrix() -> None:
    pairs = [(True, True)] * 4 + [(True, False)] * 2 + [(False, False)] * 3 + [(False, True)] * 1
    found = pope_scores(pairs)
    assert found == pytest.approx(
        {"accuracy": 0.7, "precision": 4 / 6, "recall": 4 / 5, "f1": 8 / 11, "yes_ratio": 0.6}
    )
    assert found["f1"] == pytest.approx(
        2 * found["precision"] * found["recall"] / (found["precision"] + found["recall"])
    )


def test_the_yes_ratio_is_that_of_the_answers_not_of_the_truth() -> None:
    assert pope_scores([(True, True), (True, False)])["yes_ratio"] == 1.0
    assert pope_scores([(False, True), (False, False)])["yes_ratio"] == 0.0


def test_a_model_that_never_says_yes_has_no_precision_and_an_f1_of_nothing() -> None:
    found = pope_scores([(False, True), (False, False)])
    assert "precision" not in found and found["f1"] == found["recall"] == 0.0 and found["accuracy"] == 0.5


def test_an_empty_answer_is_wrong_and_no_yes() -> None:
    assert pope_scores([(None, True), (None, False)]) == {"accuracy": 0.0, "yes_ratio": 0.0, "recall": 0.0, "f1": 0.0}
    assert pope_scores([]) == {}

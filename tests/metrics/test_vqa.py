from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.metrics.vqa import leave_one_out, normalise, normalise_words, vqa_accuracy


@pytest.mark.parametrize(
    ("matches", "worth"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)  # the values the VQA paper gives for ten annotators
def test_ten_annotators_have_the_closed_form(matches: int, worth: float) -> None:
    assert vqa_accuracy("cat", ["cat"] * matches + ["dog"] * (10 - matches)) == pytest.approx(worth)


@given(st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=12), st.sampled_from(["a", "b"]))
def test_it_is_the_mean_over_sets_that_leave_one_annotator_out(answers: list[str], prediction: str) -> None:
    sets = [answers[:i] + answers[i + 1 :] for i in range(len(answers))]
    wanted = sum(min(1.0, one.count(prediction) / 3) for one in sets) / len(sets)
    assert leave_one_out(prediction, answers) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("said", "clean"),
    [
        ("Two", "2"),
        ("none", "0"),
        ("The  red\ncar", "red car"),
        ("dont", "don't"),
        ("Don't!", "don't"),
        ("1,000", "1000"),
        ("$1,000.", "$1000"),
        ("3.5", "3.5"),
        ("yes.", "yes"),
        ("U.S.", "us"),
        ("n/a", "n"),  # a slash between letters becomes a space, and "a" is an article
        ("x-ray", "x ray"),
        ("well -done", "well done"),
        ("", ""),
        ("twenty two", "twenty 2"),
    ],
)
def test_answers_are_normalised_by_the_official_rule(said: str, clean: str) -> None:
    assert normalise(said) == clean


def test_textvqa_parts_a_possessive_and_drops_commas_between_words() -> None:
    assert normalise_words("Dog's, bowl?") == "dog 's bowl"
    assert normalise("it,s") == "it s"
    assert normalise_words("it,s") == "it's".replace("'", "")


@given(st.text(max_size=30))
def test_normalising_never_fails_and_leaves_no_outer_space(text: str) -> None:
    for clean in (normalise(text), normalise_words(text)):
        assert clean == clean.strip() == " ".join(clean.split())


def test_number_words_and_digits_are_the_same_answer() -> None:
    assert vqa_accuracy("2", ["two"] * 10) == vqa_accuracy("two", ["2"] * 10) == 1.0


def test_an_empty_answer_is_wrong_unless_annotators_gave_it() -> None:
    assert vqa_accuracy("", ["cat"] * 10) == 0.0
    assert vqa_accuracy("", [""] * 10) == 1.0


def test_a_question_without_annotators_has_no_accuracy() -> None:
    with pytest.raises(ValueError, match="annotators"):
        vqa_accuracy("cat", [])

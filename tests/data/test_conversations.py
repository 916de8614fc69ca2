"""LLaVA's JSON: what a row must be, files of any size, and errors that name the row."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.contract.failure import DataError
from ablab.data import conversations
from ablab.data.conversations import IMAGE, parse, read_rows


def row(*turns: tuple[str, str], **more: object) -> dict[str, object]:
    return {"id": "a", "conversations": [{"from": who, "value": text} for who, text in turns], **more}


def test_a_single_image_stands_first_in_its_turn() -> None:
    made = parse(row(("human", "What is it?\n<image>"), ("gpt", "a cat"), image="cat.jpg"), file="f", number=1)
    assert made.turns[0].text == f"{IMAGE}\nWhat is it?"
    assert made.images == ("cat.jpg",)


def test_places_of_several_images_stay() -> None:
    given = row(("human", "Compare <image> with <image>."), ("gpt", "equal"), image=["a.jpg", "b.jpg"])
    made = parse(given, file="f", number=1)
    assert made.turns[0].text == "Compare <image> with <image>." and len(made.images) == 2


def test_an_image_without_place_gets_one_and_text_alone_has_none() -> None:
    assert parse(row(("human", "Hi"), ("gpt", "Ho"), image="x.png"), file="f", number=1).turns[0].text == "<image>\nHi"
    assert parse(row(("human", "Hi"), ("gpt", "Ho")), file="f", number=1).images == ()


def test_a_leading_answer_is_left_out() -> None:
    made = parse(row(("gpt", "Welcome"), ("human", "Hi"), ("gpt", "Ho")), file="f", number=1)
    assert [turn.role for turn in made.turns] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (row(("human", "Hi"), ("gpt", "  ")), "the answer is empty"),
        (row(("human", "Hi"), ("robot", "Ho")), "unknown role 'robot'"),
        (row(("human", "Hi")), "does not end with an answer"),
        (row(("human", "Hi"), ("human", "Hi"), ("gpt", "Ho")), "two turns of the user in a row"),
        (row(("human", "<image> <image>"), ("gpt", "Ho"), image="x.png"), "2 x <image> in its text, but 1 images"),
        (row(("human", "<image>"), ("gpt", "Ho")), "1 x <image> in its text, but 0 images"),
        (row(("human", "Hi"), ("gpt", "see <image>"), image="x.png"), "stands in an answer"),
        (row(("human", "Hi"), ("gpt", "Ho"), image=3), "expected a name or a list of names"),
        ({"id": "a"}, "has no conversations"),
        (["a"], "expected an object"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(given: object, said: str) -> None:
    with pytest.raises(DataError, match=r"train\.json row 7") as caught:
        parse(given, file="train.json", number=7)
    assert said in str(caught.value)
    assert caught.value.detail == {"file": "train.json", "row": 7}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(rows=st.lists(_JSON, max_size=8), piece=st.integers(1, 40), indent=st.sampled_from([None, 1]))
def test_an_array_read_in_pieces_is_the_array(tmp_path_factory, rows, piece, indent) -> None:
    path = tmp_path_factory.mktemp("array") / "rows.json"
    path.write_text(json.dumps(rows, indent=indent), encoding="utf-8")
    before = conversations._PIECE
    conversations._PIECE = piece
    try:
        assert list(read_rows(path)) == list(enumerate(rows, start=1))
    finally:
        conversations._PIECE = before


def test_lines_and_arrays_that_are_cut_off_name_the_row(tmp_path) -> None:
    lines = tmp_path / "rows.jsonl"
    lines.write_text('{"a": 1}\n{"a": \n', encoding="utf-8")
    with pytest.raises(DataError, match="row 2"):
        list(read_rows(lines))
    array = tmp_path / "rows.json"
    array.write_text('[{"a": 1}, {"a": 2', encoding="utf-8")
    with pytest.raises(DataError, match=r"row 2.*cut off"):
        list(read_rows(array))

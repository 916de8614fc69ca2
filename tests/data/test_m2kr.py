"""Both forms of M2KR say the same, and every missing field has a sound behaviour."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablab.contract.failure import DataError
from ablab.data.emoji import concepts
from ablab.data.m2kr import FIELDS, Passage, both_sides, is_missing, query_of, read_passages, read_queries
from ablab.data.mini_m2kr import write_mini_m2kr

FULL = {
    "answer": ["a fox"], "data_id": "q1", "dataset_id": "d", "image_path": "i/1.png", "instruction": "Find:",
    "passage_id": ["p1", "p2"], "passage_image_path": ["i/2.png", "NA"], "passage_text": ["Foxes.", "More."],
    "question": "what is this?",
}  # fmt: skip


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    write_mini_m2kr(folder, forms=("flat", "hub"), subsets=("okvqa",), concepts=concepts()[:60])
    return folder


def test_both_forms_hold_the_same_queries_and_passages(mini: Path) -> None:
    end = "-00000-of-00001.parquet"
    flat = list(read_queries(mini / "okvqa_train.jsonl"))
    hub = list(read_queries(mini / "OKVQA_data" / f"train{end}"))
    assert flat and len(flat) == len(hub)
    for mine, theirs in zip(flat, hub, strict=True):
        assert (mine.id, mine.text, mine.image, mine.answers) == (theirs.id, theirs.text, theirs.image, theirs.answers)
        assert [p.id for p in mine.positives] == [p.id for p in theirs.positives]
        assert [p.text for p in mine.positives] == [p.text for p in theirs.positives]
    pool = list(read_passages(mini / "okvqa_passages_train.jsonl"))
    assert pool == list(read_passages(mini / "OKVQA_passages" / f"train_passages{end}"))
    assert any(passage.image is None for passage in pool)


def test_the_nine_fields_of_a_full_row() -> None:
    assert sorted(FULL) == list(FIELDS)
    query = query_of(FULL, file="f", row=1)
    assert query.text == "Find: what is this?"
    assert query.positives == (
        Passage(id="p1", text="Foxes.", image="i/2.png"), Passage(id="p2", text="More.", image=None)
    )  # fmt: skip


@pytest.mark.parametrize("missing", [None, "NA", "", float("nan")])
@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("answer", lambda q: q.answers == ()),
        ("data_id", lambda q: q.id == "f.jsonl:7"),
        ("dataset_id", lambda q: q.id == "q1"),
        ("image_path", lambda q: q.image is None),
        ("instruction", lambda q: q.text == "what is this?"),
        ("question", lambda q: q.text == "Find:"),
        ("passage_id", lambda q: len(q.positives) == 2 and all(p.id.startswith("content-") for p in q.positives)),
        ("passage_text", lambda q: [p.text for p in q.positives] == [None, None]),
        ("passage_image_path", lambda q: [p.image for p in q.positives] == [None, None]),
    ],
)
def test_every_field_may_be_missing(field: str, found, missing) -> None:
    assert found(query_of(FULL | {field: missing}, file="f.jsonl", row=7))
    without = {name: value for name, value in FULL.items() if name != field}
    assert found(query_of(without, file="f.jsonl", row=7))


def test_a_scalar_is_a_list_of_one() -> None:
    row = FULL | {"passage_id": "p", "passage_text": "One.", "passage_image_path": "x.png", "answer": "a fox"}
    query = query_of(row, file="f", row=1)
    assert query.positives == (Passage(id="p", text="One.", image="x.png"),) and query.answers == ("a fox",)


def test_answers_may_be_objects_and_ids_numbers() -> None:
    row = FULL | {"answer": [{"wikidata": 4.0, "range": [3, 5]}], "passage_id": [1, 2.0], "data_id": 12}
    query = query_of(row, file="f", row=1)
    assert query.answers == ("4", "3", "5") and query.id == "12" and [p.id for p in query.positives] == ["1", "2"]


def test_passages_without_id_are_known_by_their_content() -> None:
    first = query_of(FULL | {"passage_id": None}, file="f", row=1)
    again = query_of(FULL | {"passage_id": None, "question": "other?"}, file="f", row=2)
    assert [p.id for p in first.positives] == [p.id for p in again.positives]
    assert len({p.id for p in first.positives}) == 2


def test_damage_is_named_by_file_and_row(tmp_path: Path) -> None:
    cases = {
        "differ in length": FULL | {"passage_text": ["one"]},
        "neither text nor image": FULL | {"question": None, "instruction": "NA", "image_path": ""},
        "no query of M2KR": {"text": "hello"},
        "expected a text": FULL | {"question": ["a"]},
        "half a character": FULL | {"passage_text": ["a \ud83e", "b"]},
        r"a float \(inf\)": FULL | {"data_id": float("inf")},
        "expected an object": [1],
    }
    for says, row in cases.items():
        path = write(tmp_path / "rows.jsonl", FULL, row)
        with pytest.raises(DataError, match=says) as caught:
            list(read_queries(path))
        assert caught.value.detail["row"] == 2 and str(path) in str(caught.value)
    with pytest.raises(DataError, match="not JSON"):
        (tmp_path / "bad.jsonl").write_text("{\n")
        list(read_queries(tmp_path / "bad.jsonl"))
    with pytest.raises(DataError, match="expected one passage"):
        list(read_passages(write(tmp_path / "pool.jsonl", {"passage_id": "p", "passage_text": None})))


def test_both_sides_keeps_what_has_text_and_image() -> None:
    query = query_of(FULL, file="f", row=1)
    kept = both_sides(query)
    assert kept is not None and [p.id for p in kept.positives] == ["p1"]
    for field in ("question", "image_path", "passage_image_path"):
        assert both_sides(query_of(FULL | {field: "NA"}, file="f", row=1)) is None


def test_what_counts_as_missing() -> None:
    assert all(map(is_missing, (None, float("nan"), "", " ", "NA")))
    assert not any(map(is_missing, (0, "0", "nah", [], False)))

"""Dialogues: formats, cleaning, division, overlap, and what a prepare stage leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.contract.failure import ConfigError, DataError
from ablab.data.dialogues import (
    Dialogue,
    Fields,
    PreparedDialogues,
    ascii_share,
    clean,
    divide,
    overlaps,
    read_dialogues,
    turns,
    write_dialogues,
)

ROWS = [
    {"fname": "a", "dialogue": "#Person1#: 안녕, \"너\"\n#Person2#: 응", "summary": "인사합니다.", "topic": "인사"},
    {"fname": "b", "dialogue": "#Person1#: Hi\n#Person2#: Hello, you", "summary": "They greet.", "topic": "greeting"},
]  # fmt: skip


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return path


def test_csv_and_jsonl_say_the_same(tmp_path: Path) -> None:
    first = list(read_dialogues(write_csv(tmp_path / "a.csv", ROWS), fields=Fields()))
    second = list(read_dialogues(write_jsonl(tmp_path / "a.jsonl", ROWS), fields=Fields()))
    assert [(r.id, r.dialogue, r.summaries, r.topic) for r in first] == [
        (r["fname"], r["dialogue"], (r["summary"],), r["topic"]) for r in ROWS
    ]
    assert [(r.id, r.dialogue, r.summaries) for r in second] == [(r.id, r.dialogue, r.summaries) for r in first]
    # A quoted row of two lines ends on line 3 of the file; that is where an error would point.
    assert [row.row for row in first] == [3, 5]


def test_several_references_in_columns_or_in_a_list(tmp_path: Path) -> None:
    columns = [{"id": "x", "dialogue": "a: b", "summary1": "one", "summary2": "two", "summary3": ""}]
    fields = Fields(id="id", summaries=("summary1", "summary2", "summary3"))
    assert next(read_dialogues(write_csv(tmp_path / "a.csv", columns), fields=fields)).summaries == ("one", "two")
    listed = [{"dialogue": "a: b", "summary": ["one", "two"]}]
    assert next(read_dialogues(write_jsonl(tmp_path / "a.jsonl", listed), fields=Fields())).summaries == ("one", "two")


def test_a_set_to_hand_in_needs_no_summary(tmp_path: Path) -> None:
    rows = [{"fname": "t", "dialogue": "#Person1#: Hi"}]
    path = write_csv(tmp_path / "test.csv", rows)
    assert next(read_dialogues(path, fields=Fields(), summaries=False)).summaries == ()
    with pytest.raises(DataError, match=r"test.csv, line 2: no column 'summary'.*'fname'.*set data.fields"):
        list(read_dialogues(path, fields=Fields()))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "fname,dialogue,summary\na,b,c,d\n", "line 2: more values than columns"),
        ("a.csv", 'fname,dialogue,summary\na,"b,c\n', "not CSV"),
        ("a.csv", "fname,dialogue,summary\na, ,c\n", "line 2: an empty 'dialogue'"),
        ("a.jsonl", '{"dialogue": "x", "summary": "y"}\n{"dialogue"\n', "line 2: not JSON"),
        ("a.jsonl", "[1]\n", "a JSON list, expected an object"),
        ("a.jsonl", '{"dialogue": "x", "summary": 3}\n', "'summary' is int, expected a string"),
        ("a.txt", "x", "says no format of dialogues; use .csv or .jsonl"),
    ],
)
def test_a_damaged_file_is_named_with_its_row(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=says):
        list(read_dialogues(tmp_path / name, fields=Fields()))


@pytest.mark.parametrize(
    ("rules", "before", "after"),
    [
        (["whitespace"], "#Person1#:  a  b \\n#Person2#: c<br>\n\nd ", "#Person1#: a b\n#Person2#: c\nd"),
        (["noise"], "#Person1#: 좋아ㅋㅋㅋ!!! ㅠㅠ 와아아아아\n#Person2#: :)", "#Person1#: 좋아! 와아아\n#Person2#:"),
        (["filler"], "#Person1#: 음, 그래요. 어... 네\n#P2#: Um, well, yes", "#Person1#: 그래요. 네\n#P2#: yes"),
        (["filler"], "#Person1#: 아침 먹었어? 음식은?", "#Person1#: 아침 먹었어? 음식은?"),
        (["filler"], "#Person2#: Well done", "#Person2#: Well done"),
        (["noise"], "ㅋㅋㅋ", "ㅋㅋㅋ"),
    ],
)  # fmt: skip
def test_cleaning_rules(rules: list[Any], before: str, after: str) -> None:
    assert clean(before, rules) == after


@given(st.text(alphabet="ab 음,.!ㅋ\n#:", max_size=40))
def test_cleaning_twice_changes_nothing_more_and_leaves_something(text: str) -> None:
    once = clean(text, ["whitespace", "noise", "filler"])
    assert clean(once, ["whitespace", "noise", "filler"]) == once
    assert bool(once.strip()) or not text.strip()


def dialogue(id: str, text: str) -> Dialogue:
    return Dialogue(id=id, dialogue=text, summaries=("s",))


def test_equal_dialogues_are_found_across_splits_whatever_their_spacing() -> None:
    splits = {"train": [dialogue("1", "A: Hello,  you!"), dialogue("2", "x")], "val": [dialogue("3", "a: hello you")]}
    assert overlaps(splits) == {"train.val": [("1", "3")]}
    assert overlaps({"train": splits["train"]}) == {}


def test_equal_dialogues_are_never_divided() -> None:
    rows = [dialogue(str(i), f"turn {i // 2}{'!' * (i % 2)}") for i in range(400)]
    made = divide(rows, validation=0.2, test=0.3, seed=1)
    assert overlaps(made) == {}
    assert sum(map(len, made.values())) == 400
    assert 50 < len(made["val"]) < 110 and 80 < len(made["test"]) < 160
    assert divide(rows, validation=0.2, test=0.3, seed=1) == made


def test_prepared_dialogues_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [Dialogue(id="1", dialogue="a\nb", summaries=("x", "y"), topic="t", file="f", row=3)]
    write_dialogues(tmp_path, {"train": rows}, tags=("#Person1#",), facts={"source": "here"})
    prepared = PreparedDialogues(tmp_path)
    assert prepared.rows("train") == rows
    assert prepared.tags == ("#Person1#",) and prepared.tokenizer is None
    with pytest.raises(ConfigError, match="no split 'test'; they have train"):
        prepared.rows("test")
    with pytest.raises(DataError, match="no prepared dialogues"):
        PreparedDialogues(tmp_path / "elsewhere")


def test_turns_and_letters() -> None:
    assert turns("a\n\n b\n") == ["a", " b"]
    assert ascii_share(["abc가나다"]) == pytest.approx(0.5)
    assert ascii_share([]) == 1.0

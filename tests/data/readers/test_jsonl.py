from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablab.contract.failure import DataError
from ablab.data.readers.jsonl import read_jsonl


def test_texts_come_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n\n{"story": 1, "text": "zwei \\u00fc"}\n')
    assert [(d.text, d.row) for d in read_jsonl(path)] == [("one", 1), ("zwei ü", 3)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": "cut', "not JSON"),
        ("[1, 2]", "a JSON list, expected an object"),
        ('{"content": "x", "id": 1}', "no field 'text'; it has 'content', 'id'"),
        ('{"text": null}', "the field 'text' is null"),
        ('{"text": 3}', "the field 'text' is int, expected a string"),
        ('{"text": "half \\ud83d"}', "half a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_corrupt_row_is_named_by_file_and_line(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "good"}) + "\n" + line + "\n")
    with pytest.raises(DataError) as error:
        list(read_jsonl(path))
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert problem in str(error.value)
    assert error.value.detail == {"file": str(path), "row": 2}


def test_rows_before_the_corrupt_one_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\nbroken\n')
    assert next(read_jsonl(path)).text == "one"


def test_another_field_can_hold_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"story": "one", "text": 1}\n')
    assert [d.text for d in read_jsonl(path, field="story")] == ["one"]

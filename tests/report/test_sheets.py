"""Tables of other people's files, read by what they hold and not by what we hope."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablab.contract.failure import AblabError
from ablab.report.sheets import Sheet, plain_cell, read_sheets


def read(tmp_path: Path, name: str, text: str) -> list[Sheet]:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_sheets(tmp_path / name)


ROWS = (("a", "1.5"), ("b", "2"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "id,loss\na,1.5\nb,2\n"),
        ("x.csv", "\ufeffid;loss\r\na;1.5\r\n\r\nb;2\r\n"),
        ("x.tsv", "id\tloss\na\t1.5\nb\t2"),
        ("x.json", '[{"id": "a", "loss": 1.5}, {"id": "b", "loss": 2}]'),
        ("x.json", '{"columns": ["id", "loss"], "rows": [["a", 1.5], ["b", 2]]}'),
        ("x.json", '{"meta": 3, "results": [{"id": "a", "loss": 1.5}, {"id": "b", "loss": 2}]}'),
        ("x.jsonl", '{"format": 1}\n{"id": "a", "loss": 1.5}\n{"id": "b", "loss": 2}\n'),
        ("x.md", "# T\n\n| id | loss |\n|---|--:|\n| a | **1.5** |\n| `b` | 2 |\n\nafter | it\n"),
        ("x.md", "id | loss\n:--|--\na | 1.5\n*b* | [2](http://x)\n"),
    ],
)
def test_each_form_gives_the_same_table(tmp_path: Path, name: str, text: str) -> None:
    (sheet,) = read(tmp_path, name, text)
    assert sheet.columns == ("id", "loss")
    assert tuple(cells for _, cells in sheet.rows) == ROWS


def test_objects_of_objects_are_rows_and_nested_names_are_joined(tmp_path: Path) -> None:
    (sheet,) = read(tmp_path, "x.json", '{"A": {"val": {"loss": 1.0}}, "B": {"val": {"loss": null}}}')
    assert sheet.columns == ("experiment", "val/loss")
    assert [cells for _, cells in sheet.rows] == [("A", "1.0"), ("B", "")]


def test_rows_know_their_line_and_tables_their_heading(tmp_path: Path) -> None:
    first, second = read(tmp_path, "x.md", "## One\n|a|b|\n|-|-|\n|1|2|\n\n## Two\n|c|d|\n|-|-|\n|3 \\| 4||\n|5|\n")
    assert (first.title, first.rows) == ("One", ((4, ("1", "2")),))
    assert (second.title, second.rows) == ("Two", ((9, ("3 | 4", "")), (10, ("5", ""))))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.json", '{"a": ', "line 1: not JSON"),
        ("x.csv", 'a,b\n"1,2\n', "line 2"),
        ("x.weights", "a,b", "--format"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(AblabError, match=says):
        read(tmp_path, name, text)
    with pytest.raises(AblabError, match="is no file"):
        read_sheets(tmp_path / "missing.csv")
    (tmp_path / "bytes.csv").write_bytes(b"a,b\n\xff\xfe")
    with pytest.raises(AblabError, match="UTF-8"):
        read_sheets(tmp_path / "bytes.csv")


@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=9), min_size=2), min_size=2
    )
)
def test_any_json_table_comes_back_whole(rows: list[list[str]]) -> None:
    import tempfile

    width = min(map(len, rows))
    rows = [row[:width] for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.json"
        path.write_text(json.dumps({"columns": rows[0], "rows": rows[1:]}), encoding="utf-8")
        (sheet,) = read_sheets(path)
    assert [list(cells) for _, cells in sheet.rows] == rows[1:]


@given(st.text())
def test_a_cell_is_plain_whatever_it_holds(text: str) -> None:
    assert plain_cell(text) == plain_cell(text).strip()


def test_names_with_underscores_stay() -> None:
    assert plain_cell("okvqa_mm_train") == "okvqa_mm_train"
    assert plain_cell("_x_ **y** `z` ~~w~~ [t](u)[^1]<sup>2</sup>") == "x y z w t"

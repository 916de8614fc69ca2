from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ablab.contract.failure import DataError
from ablab.data.readers.records import hub_records, read_records

ROWS = [{"id": "1", "text": "one, two"}, {"id": "2", "text": "한글"}]


def write(folder: Path, form: str) -> Path:
    path = folder / f"rows{form}"
    if form == ".json":
        path.write_text(json.dumps(ROWS), encoding="utf-8")
    elif form == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "\n", encoding="utf-8")
    elif form == ".tsv":
        path.write_text("id\ttext\n1\tone, two\n2\t한글\n", encoding="utf-8")
    elif form == ".csv":
        path.write_text('id,text\n1,"one, two"\n2,한글\n', encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("form", [".json", ".jsonl", ".tsv", ".csv", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, form: str) -> None:
    found = list(read_records(write(tmp_path, form)))
    assert [one.values for one in found] == ROWS
    assert [one.row for one in found] == [1, 2] and all(one.file.endswith(form) for one in found)


def test_objects_by_key_and_members_of_an_object(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"x": {"v": 1}, "y": {"v": 2}}))
    (tmp_path / "b.json").write_text(json.dumps({"version": 1, "data": [{"v": 3}]}))
    assert [(one.key, one.values["v"]) for one in read_records(tmp_path / "a.json")] == [("x", 1), ("y", 2)]
    assert [one.values["v"] for one in read_records(tmp_path / "b.json", inside="data")] == [3]


def test_a_folder_is_its_files_in_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"v": name}))
    (tmp_path / "picture.png").write_bytes(b"")
    assert [one.values["v"] for one in read_records(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("x.json", "{", "not JSON"),
        ("x.json", "3", "expected rows"),
        ("x.json", "[3]", "row 1: a JSON int"),
        ("x.jsonl", '{"a": 1}\n[1]\n', "line 2: a JSON list"),
        ("x.jsonl", '{"a": 1}\nnot\n', "line 2: not JSON"),
        ("x.tsv", "a\tb\n1\t2\n1\n", "row 2: other than the 2 columns"),
        ("x.csv", "a,b\n1,2,3\n", "row 1: other than the 2 columns"),
        ("x.parquet", "nothing", "not a readable parquet"),
        ("x.xlsx", "", r"\.xlsx is not read"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, complaint: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=complaint):
        list(read_records(tmp_path / name))


def test_a_missing_field_is_named_with_those_there_are(tmp_path: Path) -> None:
    (one,) = read_records(_one(tmp_path, {"qestion": "?", "empty": None}))
    with pytest.raises(DataError, match=r"no field 'question'; it has 'qestion', 'empty'"):
        one.need("question")
    assert one.get("empty", "qestion") == "?" and one.get("empty") is None
    assert one.name("empty") == "1"


def test_zero_is_a_value(tmp_path: Path) -> None:
    (one,) = read_records(_one(tmp_path, {"id": 0}))
    assert one.text("id") == one.name("id") == "0"


def _one(folder: Path, row: dict) -> Path:
    (folder / "one.jsonl").write_text(json.dumps(row))
    return folder / "one.jsonl"


def test_the_hub_gives_images_encoded_or_not_at_all(tmp_path: Path) -> None:
    import datasets

    stream = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(stream, "PNG")
    image = {"bytes": stream.getvalue(), "path": "a.png"}
    features = datasets.Features(
        {"id": datasets.Value("string"), "image": datasets.Image(), "more": datasets.List(datasets.Image())}
    )
    rows = datasets.Dataset.from_list([{"id": "1", "image": image, "more": [image, image]}], features=features)
    (tmp_path / "hub").mkdir()
    rows.to_parquet(str(tmp_path / "hub" / "test-00000-of-00001.parquet"))
    (found,) = hub_records(str(tmp_path / "hub"), split="test")
    assert found.values["image"]["bytes"] == image["bytes"] and len(found.values["more"]) == 2
    (light,) = hub_records(str(tmp_path / "hub"), split="test", images=False)
    assert light.values == {"id": "1"}
    with pytest.raises(DataError, match="dev"):
        list(hub_records(str(tmp_path / "hub"), split="dev"))

"""What a study expects of its data beside what is found: files and bundled sets here, the hub by its cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from ablab.contract.checklist import Expected
from ablab.contract.failure import DataError
from ablab.contract.task import DataReference
from ablab.lab import load
from ablab.store.fetch import Item, fetch
from ablab.store.rows import count_rows


def look(folder: Path, *expected: dict[str, Any], references: tuple[DataReference, ...] = ()) -> list[Item]:
    entries = [Expected.model_validate(entry) for entry in expected]
    return fetch(references, lock=folder / "x.lock.json", study_folder=folder, expected=entries, download=False)


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": 2}\n', 2),
        ("a.tsv", 'a\tb\n1\t"x\ny"\n', 1),
        ("a.csv", "a,b\n", 0),
        ("a.json", '[{"a": 1}, {"a": 2}, {"a": 3}]', 3),
        ("a.json", '{"version": 1, "data": [{}, {}]}', 2),
        ("a.json", '{"x": {"q": 1}, "y": {"q": 2}}', 2),
        ("a.json", '{"version": 1}', None),
        ("a.txt", "x\n", None),
    ],
)
def test_rows_are_counted_by_format(tmp_path: Path, name: str, content: str, rows: int | None) -> None:
    (tmp_path / name).write_text(content)
    assert count_rows([tmp_path / name]) == rows


def test_rows_of_tables_add_up_and_their_descriptions_do_not_count(tmp_path: Path) -> None:
    for i in range(2):
        pq.write_table(pa.table({"a": [1, 2, 3]}), tmp_path / f"test-{i}.parquet")
    (tmp_path / "dataset_infos.json").write_text('[{"a": 1}]')
    assert count_rows(tmp_path.iterdir()) == 6
    (tmp_path / "test-0.parquet").write_text("cut")
    with pytest.raises(DataError, match=r"test-0\.parquet"):
        count_rows(tmp_path.iterdir())


def test_what_is_expected_stands_beside_what_is_found(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n' * 240)
    (item,) = look(tmp_path, {"name": "rows.jsonl", "kind": "file", "rows": 240, "purpose": "evaluation"})
    assert item.ok and item.rows == 240 and item.expected == "240 rows" and "240 rows" in item.found
    assert item.purpose == "evaluation" and item.bytes == 240 * 9


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [({"rows": 15000}, "rows: 240 instead of 15,000"), ({"bytes": "1 kB"}, "bytes: 2,160 instead of 1,000")],
)
def test_another_size_is_said_with_both_numbers(tmp_path: Path, entry: dict[str, Any], complaint: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n' * 240)
    (item,) = look(tmp_path, {"name": "rows.jsonl", "kind": "file", **entry})
    assert not item.ok and item.status == "other size" and complaint in item.remedy
    (item,) = look(tmp_path, {"name": "rows.jsonl", "kind": "file", **entry, "tolerance": 100})
    assert item.ok


def test_what_only_the_checklist_names_is_looked_for_and_what_both_name_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    reference = DataReference(kind="file", name="a.jsonl", path="data.files")
    found = look(
        tmp_path,
        {"name": "a.jsonl", "kind": "file", "rows": 1},
        {"name": "austen", "kind": "bundled", "bytes": "2 MB", "tolerance": 0.9},
        {"name": "b.jsonl", "kind": "file"},
        references=(reference,),
    )
    assert [(item.name, item.status) for item in found] == [
        ("a.jsonl", "present"), ("austen", "present"), ("b.jsonl", "missing")
    ]  # fmt: skip
    assert found[1].bytes > 100_000


def test_the_hubs_cache_is_looked_at_without_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "datasets--one--set"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("1" * 40)
    snapshot = folder / "snapshots" / ("1" * 40) / "data"
    snapshot.mkdir(parents=True)
    pq.write_table(pa.table({"a": list(range(240))}), snapshot / "test-00000.parquet")
    here, lacking = look(tmp_path, {"name": "one/set", "rows": 240}, {"name": "two/set", "kind": "model"})
    assert here.ok and here.rows == 240 and here.kind == "dataset" and here.expected == f"{'1' * 12}, 240 rows"
    assert lacking.status == "missing" and lacking.kind == "model" and lacking.remedy == "ablab fetch"


@pytest.mark.parametrize(
    ("text", "count"), [("16.2 GB", 16_200_000_000), ("512 KiB", 524_288), ("3B", 3), ("1.5 TB", 1_500_000_000_000)]
)
def test_sizes_are_read_as_people_write_them(text: str, count: int) -> None:
    assert Expected(name="x", bytes=text).bytes == count  # type: ignore[arg-type]


@pytest.mark.parametrize("entry", [{"bytes": "big"}, {"rows": -1}, {"row": 3}, {"kind": "table"}, {"name": ""}])
def test_an_entry_that_says_nothing_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Expected.model_validate({"name": "x", **entry})


def test_a_study_has_a_checklist_that_changes_no_key(tmp_path: Path) -> None:
    study = """
name: listed
task: command
experiments: {a: {pipeline: {train: {kind: command, command: "true"}}}}
"""
    (tmp_path / "a.yaml").write_text(study)
    (tmp_path / "b.yaml").write_text(study + "checklist:\n  - {name: here.jsonl, kind: file, rows: 2, purpose: test}\n")
    (tmp_path / "here.jsonl").write_text("{}\n{}\n")
    one, other = (load(tmp_path / f"{name}.yaml", store=tmp_path / "lab") for name in "ab")
    assert list(one.plan().runs) == list(other.plan().runs)
    (item,) = other.fetch(download=False)
    assert (item.name, item.rows, item.ok) == ("here.jsonl", 2, True)
    assert one.fetch() == []
    (tmp_path / "c.yaml").write_text(study + "checklist:\n  - {name: x, byts: 3}\n")
    with pytest.raises(Exception, match=r"c\.yaml.*bytes"):
        load(tmp_path / "c.yaml", store=tmp_path / "lab")
    assert json.dumps([entry.name for entry in other.study.checklist]) == '["here.jsonl"]'

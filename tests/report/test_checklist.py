"""The checklist of models and data sets in the report: expected beside found, before and after anybody has looked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ablab.contract.checklist import Expected
from ablab.lab import Lab
from ablab.report import document as d
from ablab.report.sections import checklist
from ablab.store.layout import Store
from tests.report.filled import smoke

ENTRIES = (
    Expected(name="austen", kind="bundled", bytes=1_217_544, tolerance=0, purpose="six novels"),
    Expected(name="rows.jsonl", kind="file", rows=3, purpose="lines"),
    Expected(name="nowhere.json", kind="file", rows=5),
)


def looked(lab: Lab) -> tuple[list[list[str]], list[str]]:
    section = checklist.section(lab.view())
    (table, said) = section.blocks
    assert isinstance(table, d.Table) and isinstance(said, d.Text)
    return [[cell.text for cell in row] for row in table.rows], [said.text, table.caption]


def lab_with(folder: Path, *entries: Expected) -> Lab:
    study = replace(smoke(), checklist=entries, path=str(folder / "study.yaml"))
    return Lab(study, Store(folder / "lab"))


def test_before_anybody_looked_the_expected_sizes_stand_there(tmp_path: Path) -> None:
    rows, said = looked(lab_with(tmp_path, *ENTRIES))
    assert [row[0] for row in rows] == ["austen", "rows.jsonl", "nowhere.json"]
    assert "1.2 MiB" in rows[0] and "3 rows" in rows[1] and {row[-1] for row in rows} == {"not looked at"}
    assert said[0].startswith("Not looked at yet") and said[1] == "0 of 3 are here as expected"


def test_what_fetch_found_stands_beside_it(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": 2}\n', encoding="utf-8")
    lab = lab_with(tmp_path, *ENTRIES)
    lab.fetch(download=False)
    rows, said = looked(lab)
    states = {row[0]: row for row in rows}
    assert "here" in states["austen"] and states["austen"].count("1.2 MiB") == 2
    assert "another size" in states["rows.jsonl"] and {"3 rows", "2 rows, 18 B"} <= set(states["rows.jsonl"])
    assert "missing" in states["nowhere.json"] and "put it at" in states["nowhere.json"][-1]
    assert said[0].startswith("Looked at ") and said[1] == "1 of 3 are here as expected"


def test_without_a_checklist_there_is_no_section(tmp_path: Path) -> None:
    lab = lab_with(tmp_path)
    assert checklist.section(lab.view()).blocks == ()
    assert not lab.store.checklist(lab.study.name, lab.study.profile).exists()

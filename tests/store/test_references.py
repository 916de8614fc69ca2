"""Imported references: one import is one line, the newest of a source counts."""

from __future__ import annotations

from pathlib import Path

from ablab.store.references import Imported, append_references, read_references, references_path


def one(experiment: str, value: float) -> Imported:
    return Imported(experiment=experiment, metric="val/loss", value=value, source="ignored", row=3, text=f"{value} *")


def test_an_import_reads_back_with_its_source(tmp_path: Path) -> None:
    written = append_references(tmp_path, [one("A", 1.5)], source="old log", file="log.md", digest="00", now=7.0)
    assert read_references(tmp_path) == written
    assert (written[0].source, written[0].file, written[0].row, written[0].time) == ("old log", "log.md", 3, 7.0)


def test_the_newest_import_of_a_source_replaces_what_it_gave(tmp_path: Path) -> None:
    append_references(tmp_path, [one("A", 1.0), one("B", 2.0)], source="log")
    append_references(tmp_path, [one("A", 9.0)], source="paper")
    append_references(tmp_path, [one("A", 1.1)], source="log")
    assert [(r.source, r.experiment, r.value) for r in read_references(tmp_path)] == [
        ("log", "A", 1.1),
        ("paper", "A", 9.0),
    ]
    append_references(tmp_path, [], source="log")
    assert [r.source for r in read_references(tmp_path)] == ["paper"]


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    append_references(tmp_path, [one("A", 1.0)], source="log")
    with references_path(tmp_path).open("a") as stream:
        stream.write('{"source": "x", "entries": [{"experiment": "A", "metric": "m", "value": "1"}, 3]}\n')
        stream.write('{"source": "y", "entries": 3}\n')
    assert [r.source for r in read_references(tmp_path)] == ["log"]

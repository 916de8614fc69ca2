"""The journal: appended by several at once, secrets hidden, damage survived."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ablab.store.faults import CorruptFile
from ablab.store.notes import append_note, notes_path, read_notes

TOKEN = "hf_" + "a1" * 15


def test_a_note_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = append_note(
        tmp_path,
        "  drops after warm-up\n",
        kind="hypothesis",
        study="s",
        profile="p",
        experiment="A",
        metric="val/loss",
        status={"done": 3},
    )
    assert read_notes(tmp_path) == [written]
    assert (written.text, written.status) == ("drops after warm-up", {"done": 3})


def test_a_secret_in_a_note_is_never_stored(tmp_path: Path) -> None:
    append_note(tmp_path, f"use {TOKEN} to download")
    assert TOKEN not in notes_path(tmp_path).read_text()
    assert "[redacted]" in read_notes(tmp_path)[0].text


def test_notes_written_at_once_are_all_kept_in_order(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=append_note, args=(tmp_path, f"n{n}"), kwargs={"now": float(-n)}) for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [note.text for note in read_notes(tmp_path)] == [f"n{n}" for n in reversed(range(20))]


def test_no_journal_is_no_note_and_a_torn_line_is_ignored(tmp_path: Path) -> None:
    assert read_notes(tmp_path) == []
    append_note(tmp_path, "whole")
    with notes_path(tmp_path).open("a") as stream:
        stream.write('{"time": 1, "text": "to')
    assert [note.text for note in read_notes(tmp_path)] == ["whole"]


def test_a_corrupt_line_is_named_or_skipped_and_a_foreign_kind_is_an_observation(tmp_path: Path) -> None:
    append_note(tmp_path, "first")
    with notes_path(tmp_path).open("a") as stream:
        stream.write('nonsense\n{"time": 5, "text": "later", "kind": "musing"}\n{"time": 6}\n')
    with pytest.raises(CorruptFile, match=r"notes\.jsonl, line 3"):
        read_notes(tmp_path)
    problems: list[str] = []
    found = read_notes(tmp_path, problems=problems)
    assert {note.text: note.kind for note in found} == {"first": "observation", "later": "observation"}
    assert len(problems) == 1

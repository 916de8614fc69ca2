"""How an attempt ended, from its record or from its process."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ablab.launch import endings
from ablab.launch.endings import checkpoint_mark, read_ending
from ablab.launch.executors.base import Exit
from ablab.store.layout import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "train-1").create()
    made.attempt(1).create()
    return made


def record(folder: RunFolder, **values: object) -> None:
    folder.attempt(1).end.write_text(json.dumps({"format": 1, "message": "m", "detail": {"a": 1}, "time": 0, **values}))


def test_the_workers_record_counts_whatever_the_exit_status(folder: RunFolder) -> None:
    record(folder, kind="data")
    ending = read_ending(folder, 1, Exit(code=-9))
    assert (ending.kind, ending.message, ending.detail) == ("data", "m", {"a": 1})


@pytest.mark.parametrize(
    ("ended", "kind", "says"),
    [
        (Exit(code=-9), "killed", "SIGKILL"),
        (Exit(code=-99), "killed", "signal 99"),
        (Exit(code=None), "killed", "gone"),
        (Exit(code=1), "crash", "status 1"),
        (Exit(code=0), "crash", "status 0"),
        (Exit(code=3), "stopped", "request"),
        (Exit(code=None, kind="time-limit", message="TIMEOUT"), "time-limit", "TIMEOUT"),
    ],
)
def test_without_a_record_the_process_tells_and_one_is_written(
    folder: RunFolder, ended: Exit, kind: str, says: str
) -> None:
    ending = read_ending(folder, 1, ended)
    assert ending.kind == kind and says in ending.message
    written = folder.attempt(1).read_end()
    assert written is not None and (written["kind"], written["detail"]) == (kind, {"exit": ended.code})


def test_silence_on_a_full_disk_is_the_disks_fault(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "disk_free", lambda _: 4096)
    assert read_ending(folder, 1, Exit(code=1)).kind == "disk-full"
    record(folder, kind="data")
    assert read_ending(folder, 1, Exit(code=1)).kind == "data"


def test_a_torn_record_is_no_record(folder: RunFolder) -> None:
    folder.attempt(1).end.write_text('{"kind": "da')
    assert read_ending(folder, 1, Exit(code=-9)).kind == "killed"


def test_a_kind_nobody_knows_is_a_crash(folder: RunFolder) -> None:
    record(folder, kind="cosmic-ray")
    assert read_ending(folder, 1, Exit(code=1)).kind == "crash"


def test_a_record_that_says_done_without_a_result_is_no_end(folder: RunFolder) -> None:
    record(folder, kind="done")
    assert read_ending(folder, 1, Exit(code=0)).kind == "lost"


def test_the_newest_attempt_is_the_one_that_ended(folder: RunFolder) -> None:
    record(folder, kind="data")
    folder.attempt(2).create()
    assert read_ending(folder, 1, Exit(code=-9)).attempt == 2


def test_the_mark_changes_with_every_checkpoint_and_with_nothing_else(folder: RunFolder) -> None:
    marks = [checkpoint_mark(folder.checkpoints)]
    for step in (1, 2):
        time.sleep(0.01)
        (folder.checkpoints / f"step-{step:08d}").mkdir(parents=True)
        (folder.checkpoints / ".tmp-half").mkdir(exist_ok=True)
        marks.append(checkpoint_mark(folder.checkpoints))
        assert marks[-1] == checkpoint_mark(folder.checkpoints)
    assert len(set(marks)) == 3 and marks[0] == ""

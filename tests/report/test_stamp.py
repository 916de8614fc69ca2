"""The stamp differs when the report would, and not otherwise."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ablab.contract.state import State
from ablab.report.stamp import Stamp
from ablab.store.claims import acquire
from ablab.store.layout import Store
from ablab.store.notes import append_note


def run(store: Store, name: str, status: str = "done") -> None:
    folder = store.run(name).create()
    folder.write_state(State(status=status, updated=1.0))  # type: ignore[arg-type]
    if status == "done":
        (folder.path / "result.json").write_text("{}")


def test_nothing_changed_is_the_same_stamp_and_each_change_another(tmp_path: Path) -> None:
    store = Store(tmp_path / "lab")
    study = tmp_path / "study.yaml"
    study.write_text("name: s\n")
    folder = store.study_folder("s", "full")
    stamp = Stamp(store, folder, files=(study,))
    seen = [stamp()]
    assert stamp() == seen[0]
    for change in (
        lambda: run(store, "train-1", "running"),
        lambda: run(store, "train-1", "done"),
        lambda: run(store, "train-2"),
        lambda: append_note(folder, "hello"),
        lambda: study.write_text("name: s\nseeds: [1]\n"),
        lambda: store.new_launch(),
        lambda: store.run("train-2").append_issue({"kind": "crash"}),
    ):
        change()
        seen.append(stamp())
        assert stamp() == seen[-1]
    assert len(set(seen)) == len(seen)


def test_a_finished_run_is_looked_at_no_more_without_a_false_alarm(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run(store, "train-1")
    old = time.time() - 3600
    for path in store.run("train-1").path.iterdir():
        os.utime(path, (old, old))
    stamp = Stamp(store, store.study_folder("s", "full"))
    first = stamp()
    assert stamp() == first
    run(store, "train-2", "running")
    assert stamp() != first


def test_a_worker_that_is_killed_changes_the_stamp_without_changing_a_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run(store, "train-1", "running")
    claim = acquire(store.run("train-1").claim_path, beat=1000.0)
    stamp = Stamp(store, store.study_folder("s", "full"))
    alive = stamp()
    claim.release()
    assert stamp() != alive

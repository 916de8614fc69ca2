"""The live view's knowledge: right, kept up to date, and had by looking only at what changed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ablab.contract.state import State
from ablab.plan.graph import Plan
from ablab.plan.planning import make_plan
from ablab.report import watching
from ablab.report.watching import Snapshot, Watcher
from ablab.store.claims import acquire
from ablab.store.layout import Store
from tests.report.filled import fill, frozen_launch, smoke

STATUS = {
    ("blind", 42, "train"): "failed",
    ("blind", 42, "evaluate"): "pending",
    ("frozen-orthogonal", 123, "train"): "running",
    ("frozen-orthogonal", 123, "evaluate"): "pending",
    ("trained", 123, "evaluate"): "pending",
    ("blind", 123, "train"): "waiting",
    ("blind", 123, "evaluate"): "pending",
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Plan]:
    store = Store(tmp_path_factory.mktemp("original"))
    study = smoke()
    plan = fill(store, study, status=STATUS)
    frozen_launch(store, study, plan)
    return store, plan


@pytest.fixture
def filled(original: tuple[Store, Plan], tmp_path: Path) -> Iterator[tuple[Store, Plan]]:
    """A copy of the store in which one run has a living worker: this process."""
    shutil.copytree(original[0].root, tmp_path / "lab", symlinks=True)
    store = Store(tmp_path / "lab")
    run = original[1].run_of("frozen-orthogonal", 123, "train")
    assert run is not None
    with acquire(store.run(run.name).claim_path):
        yield store, make_plan(original[1].study, store)


def waits(snapshot: Snapshot) -> dict[str, str]:
    return {wait.title: wait.reason for wait in snapshot.waits}


def test_what_waits_for_what(filled: tuple[Store, Plan]) -> None:
    store, plan = filled
    snapshot = Watcher(store, plan).look()
    assert waits(snapshot) == {
        "blind seed 42 evaluate": "blocked: train failed",
        "blind seed 123 train": "somebody else",
        "frozen-orthogonal seed 123 evaluate": "waits for train (running, 50 %)",
        "blind seed 123 evaluate": "waits for train (waiting)",
        "trained seed 123 evaluate": "ready: waits for a free place",
    }
    assert [wait.rank for wait in snapshot.waits] == sorted(wait.rank for wait in snapshot.waits)
    assert {status: snapshot.counts[status] for status in ("running", "failed", "waiting", "pending")} == {
        "running": 1, "failed": 1, "waiting": 1, "pending": 4,
    }  # fmt: skip
    assert [row.status for row in snapshot.rows] == ["running", "failed", "waiting"]


def test_a_running_row_has_its_curve_and_the_gap_at_the_last_common_step(filled: tuple[Store, Plan]) -> None:
    snapshot = Watcher(*filled).look()
    row = snapshot.rows[0]
    points = snapshot.losses[row.run]
    assert [step for step, _ in points] == list(range(1, 11))
    assert row.gap_step == 10
    assert row.gap is not None and 1.0 < row.gap < 1.05


def test_without_a_study_the_last_plans_of_the_store_tell_the_same(filled: tuple[Store, Plan]) -> None:
    store, plan = filled
    one, other = Watcher(store, plan).look(), Watcher(store).look()
    assert waits(one) == waits(other)
    assert one.counts == other.counts
    assert one.share == other.share
    assert [row.run for row in one.rows] == [row.run for row in other.rows]


def test_a_look_reads_only_what_changed(filled: tuple[Store, Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    store, plan = filled
    watcher = Watcher(store, plan)
    watcher.look()
    read: list[str] = []
    real = watching.status_of

    def counted(path: str) -> Any:
        read.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(watching, "status_of", counted)
    running = plan.run_of("frozen-orthogonal", 123, "train")
    failed = plan.run_of("blind", 42, "train")
    assert running is not None and failed is not None
    watcher.look()
    assert read == [running.name]
    read.clear()
    store.run(failed.name).write_state(State(status="stopped", updated=2.0, progress=0.5))
    snapshot = watcher.look()
    assert sorted(read) == sorted([running.name, failed.name])
    assert snapshot.counts["stopped"] == 1


def test_a_worker_that_died_is_seen_though_no_file_changed(original: tuple[Store, Plan], tmp_path: Path) -> None:
    shutil.copytree(original[0].root, tmp_path / "lab", symlinks=True)
    store = Store(tmp_path / "lab")
    run = original[1].run_of("frozen-orthogonal", 123, "train")
    assert run is not None
    claim = acquire(store.run(run.name).claim_path)
    watcher = Watcher(store, make_plan(original[1].study, store))
    assert watcher.look().counts["running"] == 1
    claim.release()
    counts = watcher.look().counts
    assert (counts.get("running", 0), counts["stopped"]) == (0, 1)


def test_a_new_launch_brings_a_new_plan(filled: tuple[Store, Plan]) -> None:
    store, plan = filled
    made: list[Plan] = []

    def replan() -> Plan:
        made.append(make_plan(plan.study, store))
        return made[-1]

    watcher = Watcher(store, plan, replan)
    watcher.look()
    assert made == []
    store.new_launch()
    watcher.look()
    watcher.look()
    assert len(made) == 1


def test_a_damaged_plan_or_state_ends_nothing(filled: tuple[Store, Plan]) -> None:
    store, plan = filled
    watcher = Watcher(store)
    watcher.look()
    (store.study_folder(plan.study.name, plan.study.profile) / "plan.json").write_text('{"runs": [{"name": 1}]}')
    run = plan.run_of("blind", 42, "train")
    assert run is not None
    store.run(run.name).state_path.write_text("{")
    snapshot = watcher.look()
    assert [wait.title for wait in snapshot.waits] == ["blind seed 123 train"]
    assert sum(snapshot.counts.values()) > 5


def test_an_empty_store_can_be_watched_until_something_begins(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    watcher = Watcher(store)
    assert watcher.look().share is None
    study = smoke()
    plan = fill(store, study)
    frozen_launch(store, study, plan)
    assert watcher.look().share == 1.0


def test_no_more_rows_are_read_than_fit(filled: tuple[Store, Plan]) -> None:
    snapshot = Watcher(*filled).look(most=1)
    assert len(snapshot.rows) == 1
    assert len(snapshot.losses) == 1

"""What a run folder says about where its run stands."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ablab.contract.state import State
from ablab.plan.graph import Run
from ablab.plan.planning import make_plan
from ablab.store.claims import acquire
from ablab.store.layout import Store


def state(status: Any, **fields: Any) -> State:
    return State(status=status, updated=time.time(), **fields)


@pytest.fixture
def study(toy: Any) -> Any:
    return toy.study({"A": toy.usual()}, seeds=(1,))


def train_of(study: Any, store: Store) -> Run:
    run = make_plan(study, store).run_of("A", 1, "train")
    assert run is not None
    return run


def test_without_a_folder_a_run_is_pending(study: Any, store: Store) -> None:
    run = train_of(study, store)
    assert (run.status, run.folder, run.name) == ("pending", "", f"train-{run.key}")


def test_a_result_makes_it_done(toy: Any, study: Any, store: Store) -> None:
    toy.finish(store, train_of(study, store))
    assert train_of(study, store).status == "done"


def test_stopped_is_never_done(toy: Any, study: Any, store: Store) -> None:
    run = train_of(study, store)
    toy.finish(store, run)
    store.run(run.name).write_state(state("stopped"))
    assert train_of(study, store).status == "stopped"


def test_a_stopped_message_is_not_a_stopped_state(toy: Any, study: Any, store: Store) -> None:
    run = train_of(study, store)
    toy.finish(store, run)
    store.run(run.name).write_state(state("done", message="stopped", kind="stopped"))
    assert train_of(study, store).status == "done"


@pytest.mark.parametrize("status", ["failed", "stopped", "waiting", "paused"])
def test_settled_states_are_believed(study: Any, store: Store, status: Any) -> None:
    store.run(train_of(study, store).name).create().write_state(state(status))
    assert train_of(study, store).status == status


@pytest.mark.parametrize("status", ["running", "done"])
def test_without_a_living_claim_or_a_result_it_was_stopped(study: Any, store: Store, status: Any) -> None:
    store.run(train_of(study, store).name).create().write_state(state(status))
    assert train_of(study, store).status == "stopped"


def test_an_attempt_without_a_state_was_stopped(study: Any, store: Store) -> None:
    folder = store.run(train_of(study, store).name).create()
    assert train_of(study, store).status == "pending"
    folder.new_attempt()
    assert train_of(study, store).status == "stopped"


@pytest.mark.parametrize("status", ["running", "failed", "waiting"])
def test_a_living_claim_means_running(study: Any, store: Store, status: Any) -> None:
    folder = store.run(train_of(study, store).name).create()
    folder.write_state(state(status, remaining=12.5))
    with acquire(folder.claim_path):
        run = train_of(study, store)
        assert (run.status, run.remaining) == ("running", 12.5)
    assert train_of(study, store).status != "running"


def test_a_claim_before_any_state_means_running(study: Any, store: Store) -> None:
    folder = store.run(train_of(study, store).name).create()
    with acquire(folder.claim_path):
        assert train_of(study, store).status == "running"
    assert train_of(study, store).status == "pending"


def test_a_damaged_state_says_nothing(study: Any, store: Store) -> None:
    folder = store.run(train_of(study, store).name).create()
    folder.state_path.write_text('{"format": 1, "stat')
    assert train_of(study, store).status == "pending"


def test_planned_runs_that_are_done_are_done(toy: Any, store: Store) -> None:
    study = toy.study({"A": toy.usual()}, seeds=(1,), options={"A": {"planned": True}})
    run = train_of(study, store)
    assert run.status == "planned"
    toy.finish(store, run)
    assert train_of(study, store).status == "done"


def test_a_run_that_another_stage_name_made_is_found(toy: Any, study: Any, store: Store) -> None:
    toy.finish(store, train_of(study, store))
    renamed = (toy.stage("prepare"), toy.stage("phase1", "prepare", kind="train"))
    run = make_plan(toy.study({"B": renamed}, seeds=(1,)), store).run_of("B", 1, "phase1")
    assert run is not None and run.status == "done"
    assert run.name == f"train-{run.key}" and store.run(run.name).done


def test_unfinished_names_are_no_runs(study: Any, store: Store) -> None:
    run = train_of(study, store)
    (store.root / "runs" / f".tmp-train-{run.key}").mkdir(parents=True)
    assert train_of(study, store).folder == ""

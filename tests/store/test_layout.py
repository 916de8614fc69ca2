"""Where things stand: run folders, attempts, links, typed reading."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablab.contract.order import Order
from ablab.contract.result import Best, Result
from ablab.contract.state import State
from ablab.store.files import CorruptFile, UnreadableFormat
from ablab.store.layout import RunFolder, Store, open_store, safe_name


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "lab")


def order_for(run: RunFolder, **fields: object) -> Order:
    values = {"task": "t", "study": "s", "profile": "full", "experiment": "A"} | fields
    return Order(key=run.key, stage=run.stage, kind="train", folder=str(run.path), **values)


def test_the_store_is_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ABLAB_STORE", raising=False)
    assert open_store().root == tmp_path / "lab"
    monkeypatch.setenv("ABLAB_STORE", str(tmp_path / "elsewhere"))
    assert open_store().root == tmp_path / "elsewhere"
    assert open_store("given").root == tmp_path / "given"
    assert list(tmp_path.iterdir()) == []


def test_a_stage_name_may_hold_dashes(store: Store) -> None:
    run = store.run("train-phase-1-0123abcd")
    assert (run.name, run.stage, run.key) == ("train-phase-1-0123abcd", "train-phase-1", "0123abcd")


def test_an_empty_store_has_nothing(store: Store) -> None:
    run = store.run("train-01")
    assert list(store.runs()) == [] and store.launches() == [] and store.find("train") == []
    assert not run.exists and not run.done and run.attempts() == [] and run.read_issues() == []
    assert run.read_order() is run.read_state() is run.read_result() is run.attempt(1).read_end() is None


def test_contract_models_read_back(store: Store) -> None:
    run = store.run("train-01").create()
    state = State(status="running", updated=1.5, step=3, best={"val/loss": 2.0}, message="ü")
    result = Result(key="01", metrics={"val/loss": 1.25}, best={"val/loss": Best(value=1.0, step=7)})
    order = order_for(run, parameters={"steps": 3}, seed=42, attempt=2)
    run.write_state(state)
    run.write_order(order)
    assert not run.done
    run.write_result(result)
    assert run.done
    assert (run.read_state(), run.read_result(), run.read_order()) == (state, result, order)
    assert [found.name for found in store.runs()] == ["train-01"]


def test_a_finished_run_is_never_changed(store: Store) -> None:
    run = store.run("train-01").create()
    run.write_result(Result(key="01", metrics={"a": 1.0}))
    with pytest.raises(FileExistsError):
        run.write_result(Result(key="01", metrics={"a": 2.0}))
    result = run.read_result()
    assert result is not None and result.metrics == {"a": 1.0}


@pytest.mark.parametrize(
    "data", [b"", b'{"format": 1, "status": "runn', b"\x00" * 200, b"[]", b'{"status": "running"}']
)
def test_a_damaged_state_is_named(store: Store, data: bytes) -> None:
    run = store.run("train-01").create()
    run.state_path.write_bytes(data)
    with pytest.raises(CorruptFile, match=r"train-01/state\.json"):
        run.read_state()


def test_a_wrong_value_is_named_with_its_place_and_a_newer_format_by_name(store: Store) -> None:
    run = store.run("train-01").create()
    run.state_path.write_text('{"format": 1, "status": "sleeping", "updated": 1.0}')
    with pytest.raises(CorruptFile, match=r"state\.json: status: "):
        run.read_state()
    run.state_path.write_text('{"format": 2, "status": "sleeping", "since": 1.0}')
    with pytest.raises(UnreadableFormat, match="format 2 was written by a newer"):
        run.read_state()


def test_attempts_are_numbered_and_never_shared(store: Store) -> None:
    run = store.run("train-01")
    numbers: list[int] = []

    def work() -> None:
        for _ in range(20):
            numbers.append(run.new_attempt().number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 81)) == run.attempts()
    (run.path / "attempts" / "notes").mkdir()
    assert run.attempts()[-1] == 80


def test_issues_are_appended_with_their_time(store: Store) -> None:
    run = store.run("train-01")
    run.append_issue({"kind": "killed", "message": "one"})
    run.append_issue({"kind": "lost", "time": 5.0})
    first, second = run.read_issues()
    assert first["kind"] == "killed" and first["time"] > 1e9 and second["time"] == 5.0


def test_secrets_do_not_reach_issues_and_state(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "abc123def")
    run = store.run("train-01").create()
    run.append_issue({"message": "refused abc123def", "detail": {"url": "https://u:pw@h/"}})
    run.write_state(State(status="failed", updated=1.0, message="refused abc123def"))
    stored = run.issues_path.read_text() + run.state_path.read_text()
    assert "abc123def" not in stored and ":pw@" not in stored and stored.count("refused") == 2


def test_links_by_name_lead_to_the_run_and_survive_moving_the_store(store: Store, tmp_path: Path) -> None:
    for key in ("01", "02"):
        store.run(f"train-{key}").create().write_state(State(status="done", updated=float(key)))
    link = store.link("gpt", "full", "GPT-01", 42, "train", "train-01")
    assert link == store.root / "studies/gpt/full/by-name/GPT-01/seed-42/train"
    assert not link.readlink().is_absolute()
    store.link("gpt", "full", "GPT-01", 42, "train", "train-01")
    store.link("gpt", "full", "GPT-01", 42, "train", "train-02")
    shutil.move(store.root, tmp_path / "moved")
    moved = tmp_path / "moved" / link.relative_to(store.root)
    state = RunFolder(moved).read_state()
    assert state is not None and state.updated == 2.0
    assert len(list(moved.parent.iterdir())) == 1


def test_launches_are_listed_by_age_and_unfinished_ones_are_not(store: Store) -> None:
    names = ["20260101-000000-aa", "20260102-000000-aa"]
    for name in reversed(names):
        store.launch_folder(name).mkdir(parents=True)
    new = store.new_launch()
    (store.root / "launches" / ".tmp-x").mkdir()
    assert [path.name for path in store.launches()] == [*names, new.name]


def test_runs_are_found_by_name_or_key(store: Store) -> None:
    for name in ("train-0a1", "train-0b1", "prepare-0a2"):
        store.run(name).create()
    assert [run.name for run in store.find("0a")] == ["prepare-0a2", "train-0a1"]
    assert [run.name for run in store.find("train")] == ["train-0a1", "train-0b1"]


@settings(deadline=None)
@given(names=st.lists(st.text(max_size=300), unique=True, max_size=4))
def test_safe_names_stay_in_their_folder_and_do_not_collide(names: list[str]) -> None:
    safe = [safe_name(name) for name in names]
    assert len(set(safe)) == len(names)
    for name in safe:
        assert "/" not in name and "\0" not in name and not name.startswith(".") and 0 < len(os.fsencode(name)) < 256


@pytest.mark.parametrize("name", ["GPT-02", "F4", "lr=3e-4,depth=2", "임베딩"])
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert safe_name(name) == name

"""Retention removes what may go, says so before and after, and never anything else."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablab.contract.order import Input, Order
from ablab.contract.result import Result
from ablab.store.claims import acquire
from ablab.store.files import atomic_folder, write_json
from ablab.store.layout import RunFolder, Store
from ablab.store.manifest import is_valid, write_manifest
from ablab.store.retention import (
    Removal,
    collect,
    disk_free,
    dropped,
    folder_bytes,
    folder_size,
    read_index,
    removals,
)


def keeping(**fields: Any) -> Any:
    return SimpleNamespace(**({"last": True, "best": 1, "every": None, "intermediate": True} | fields))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "lab")


def step(n: int) -> str:
    return f"step-{n:08d}"


def make(
    store: Store, name: str, *, done: bool = True, reads: tuple[str, ...] = (), steps: range = range(0)
) -> RunFolder:
    """A run with checkpoints whose best are the third and the second, in this order."""
    run = store.run(name).create()
    inputs = tuple(Input(reference="x", stage="train", kind="train", key=key, path="/x") for key in reads)
    names = {"task": "t", "study": "s", "profile": "full", "experiment": "A"}
    run.write_order(Order(key=run.key, stage=run.stage, kind="train", inputs=inputs, folder=str(run.path), **names))
    for n in steps:
        with atomic_folder(run.checkpoints / step(n), sync=False) as folder:
            (folder / "model.safetensors").write_bytes(b"x" * 1000)
            write_manifest(folder)
    if steps:
        best = [{"name": step(steps[i]), "value": 1.0, "step": steps[i]} for i in (2, 1)]
        write_json(run.checkpoints / "index.json", {"last": step(steps[-1]), "best": best, "keep": [step(steps[0])]})
    attempt = run.new_attempt()
    attempt.events.write_text('{"e": "start", "step": 0}\n')
    attempt.log.write_text("log\n")
    if done:
        run.write_result(Result(key=run.key, metrics={"val/loss": 1.0}))
    return run


def names(found: list[Removal]) -> list[str]:
    return sorted(removal.path.name for removal in found)


def kept(run: RunFolder) -> list[int]:
    return sorted(int(path.name[5:]) for path in run.checkpoints.glob("step-*"))


@pytest.mark.parametrize(
    ("policy", "stays"),
    [
        ({}, [10, 30, 60]),
        ({"best": 2}, [10, 20, 30, 60]),
        ({"best": 0}, [10, 60]),
        ({"last": False, "best": 0}, [10]),
        ({"every": 20, "best": 0}, [10, 20, 40, 60]),
    ],
)
def test_last_best_every_and_kept_ones_stay(store: Store, policy: dict[str, Any], stays: list[int]) -> None:
    run = make(store, "train-01", steps=range(10, 70, 10))
    found = removals(store, retention=keeping(**policy))
    assert names(found) == [step(n) for n in range(10, 70, 10) if n not in stays]
    assert kept(run) == list(range(10, 70, 10))
    sizes = [folder_size(removal.path) for removal in found]
    assert [(removal.bytes, removal.files) for removal in found] == sizes
    before = folder_bytes(store.root)
    assert names(collect(found)) == names(found)
    assert kept(run) == stays and all(is_valid(run.checkpoints / step(n)) for n in stays)
    record = folder_bytes(run.checkpoints / "dropped.jsonl")
    assert folder_bytes(store.root) - record == before - sum(removal.bytes for removal in found)
    assert removals(store, retention=keeping(**policy)) == []


def test_results_logs_and_events_stay_and_what_was_dropped_is_written(store: Store) -> None:
    run = make(store, "train-01", steps=range(10, 40, 10))
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file() and "step-" not in str(p)}
    collect(removals(store, retention=keeping(last=False, best=0)))
    assert {p: p.read_bytes() for p in before} == before
    assert dropped(run) == {step(20): "outside the retention", step(30): "outside the retention"}
    assert read_index(run).last == step(30)
    with atomic_folder(run.checkpoints / step(30)) as folder:
        write_manifest(folder)
    assert list(dropped(run)) == [step(20)]


def test_an_intermediate_goes_when_all_that_read_it_are_done(store: Store) -> None:
    first = make(store, "pretrain-01", steps=range(10, 40, 10))
    make(store, "train-02", reads=("01",), steps=range(10, 40, 10))
    consumer = make(store, "train-03", reads=("01",), done=False)
    policy = keeping(intermediate=False, best=2)
    assert removals(store, retention=policy, runs={"01"}) == []
    assert names(removals(store, retention=keeping(last=False, best=0), runs={"pretrain-01"})) == [step(20)]
    consumer.write_result(Result(key="03"))
    assert names(removals(store, retention=policy, runs={"01"})) == [step(20), step(30)]
    assert removals(store, retention=policy, runs={"01"}, pinned={"01"}) == []
    assert removals(store, retention=policy, runs={"01"}, pinned={"pretrain-01"}) == []
    assert removals(store, retention=keeping(best=2), runs={"01"}) == []
    collect(removals(store, retention=policy, runs={"01"}))
    assert set(dropped(first).values()) == {"every run that reads it is done"} and kept(first) == [10]


def test_a_run_that_nobody_reads_is_no_intermediate(store: Store) -> None:
    make(store, "train-01", steps=range(10, 40, 10))
    assert names(removals(store, retention=keeping(intermediate=False))) == [step(20)]


def test_unfinished_and_busy_runs_are_left_alone(store: Store) -> None:
    make(store, "train-01", steps=range(10, 70, 10), done=False)
    busy = make(store, "train-02", steps=range(10, 70, 10))
    with acquire(busy.claim_path):
        assert removals(store, retention=keeping(last=False, best=0)) == []


def test_the_work_looks_again_before_it_removes(store: Store) -> None:
    claimed = make(store, "train-01", steps=range(10, 40, 10))
    needed = make(store, "train-02", steps=range(10, 40, 10))
    found = removals(store, retention=keeping(last=False, best=0))
    assert names(found) == [step(20), step(20), step(30), step(30)]
    make(store, "evaluate-03", reads=("02",), done=False)
    with acquire(claimed.claim_path):
        done = collect(found)
    assert [(r.run.key, r.path.name) for r in done if r.run] == [("02", step(20))]
    assert kept(claimed) == [10, 20, 30] and kept(needed) == [10, 30]


def test_without_a_readable_index_everything_stays(store: Store) -> None:
    run = make(store, "train-01", steps=range(10, 40, 10))
    for content in ("{", "[]", '{"best": 3}', '{"best": [{}]}'):
        (run.checkpoints / "index.json").write_text(content)
        assert removals(store, retention=keeping(last=False, best=0)) == [], content


def old(path: Path, seconds: float = 7200) -> Path:
    for item in (*path.rglob("*"), path):
        os.utime(item, (time.time() - seconds,) * 2)
    return path


def test_remains_of_killed_writers_go_when_nobody_works_there(store: Store) -> None:
    run = make(store, "train-01", done=False, steps=range(10, 40, 10))
    half = run.checkpoints / ".tmp-step-00000040-1-abcd"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"x" * 500)
    (run.path / ".tmp-state.json-1-abcd").write_text("{")
    (store.root / "launches").mkdir()
    (store.root / "launches" / ".tmp-x-1-a").write_text("12345")
    assert removals(store, retention=keeping()) == []
    for path in (half, run.path / ".tmp-state.json-1-abcd", store.root / "launches" / ".tmp-x-1-a"):
        old(path)
    with acquire(run.claim_path):
        assert names(removals(store, retention=keeping())) == [".tmp-x-1-a"]
    found = removals(store, retention=keeping())
    assert names(found) == [".tmp-state.json-1-abcd", ".tmp-step-00000040-1-abcd", ".tmp-x-1-a"]
    assert sum(removal.bytes for removal in found) == 506
    collect(found)
    assert not list(store.root.rglob(".tmp-*")) and kept(run) == [10, 20, 30]


def test_a_checkpoint_without_manifest_was_never_finished(store: Store) -> None:
    run = make(store, "train-01", steps=range(10, 40, 10))
    (run.checkpoints / step(30) / "manifest.json").unlink()
    (removal,) = [r for r in removals(store, retention=keeping(best=5)) if r.path.name == step(30)]
    assert (removal.what, removal.reason) == ("remains", "never finished")


def test_a_kill_between_record_and_removal_is_no_loss(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from ablab.store import retention

    run = make(store, "train-01", steps=range(10, 40, 10))
    found = removals(store, retention=keeping())

    def die(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(retention, "_erase", die)
    with pytest.raises(KeyboardInterrupt):
        collect(found)
    monkeypatch.undo()
    assert dropped(run) == {} and kept(run) == [10, 20, 30]
    collect(removals(store, retention=keeping()))
    assert list(dropped(run)) == [step(20)]


def test_sizes_count_files_once_and_follow_no_links(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x").write_bytes(b"1" * 10)
    (tmp_path / "a" / "b" / "y").write_bytes(b"1" * 5)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert folder_size(tmp_path / "a") == (15 + len(str(tmp_path)), 3)
    assert folder_bytes(tmp_path / "a" / "x") == 10 and folder_bytes(tmp_path / "none") == 0
    free = os.statvfs(tmp_path)
    assert abs(disk_free(tmp_path / "not" / "yet") - free.f_bavail * free.f_frsize) < 1 << 30


def test_the_index_of_the_training_loop_is_read(store: Store) -> None:
    training = pytest.importorskip("ablab.training.retention")
    run = store.run("train-01").create()
    index = training.Index(last=step(2), keep=[step(1)])
    index.rank(2, 0.5, mode="min", count=2)
    index.rank(1, 0.7, mode="min", count=2)
    training.write_index(run.checkpoints, index)
    found = read_index(run)
    assert (found.last, found.best, found.keep) == (step(2), (step(2), step(1)), (step(1),))
    assert json.loads((run.checkpoints / "index.json").read_text())["format"] == 1

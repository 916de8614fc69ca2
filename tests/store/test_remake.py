"""Weights that were dropped come back from a remake, and a finished run stays as it was."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ablab.contract.order import Numerics
from ablab.contract.result import Result
from ablab.store.files import atomic_folder, write_json
from ablab.store.layout import RunFolder, Store
from ablab.store.manifest import write_manifest
from ablab.store.remake import lost_weights, restore
from ablab.store.retention import collect, dropped, removals

NOTHING = SimpleNamespace(last=False, best=0, every=None, intermediate=True)
NAMES = ("step-00000010", "step-00000020")


def fill(run: RunFolder, content: bytes = b"weights", loss: float = 1.0) -> RunFolder:
    """A finished run whose best checkpoint is its first one."""
    for name in NAMES:
        with atomic_folder(run.checkpoints / name, sync=False, replace=True) as folder:
            (folder / "model.safetensors").write_bytes(content)
            write_manifest(folder)
    best = [{"name": NAMES[0], "value": 1.0, "step": 10}]
    write_json(run.checkpoints / "index.json", {"last": NAMES[1], "best": best, "keep": []})
    run.write_result(Result(key="01", metrics={"val/loss": loss}, numerics=Numerics()))
    return run


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    store = Store(tmp_path / "lab")
    run = fill(store.run("train-01").create())
    assert lost_weights(run, "last") is lost_weights(run, "best") is None
    assert len(collect(removals(store, retention=NOTHING))) == 2
    return run


def test_what_is_lost_is_told_apart(run: RunFolder, tmp_path: Path) -> None:
    assert lost_weights(run, "last") == lost_weights(run, "best") == "weights dropped"
    (run.checkpoints / "dropped.jsonl").unlink()
    assert lost_weights(run, "last") == "weights gone"
    assert lost_weights(RunFolder(tmp_path / "lab" / "runs" / "prepare-02"), "last") is None


def test_only_a_finished_remake_gives_its_weights(run: RunFolder) -> None:
    before = run.result_path.read_bytes()
    with atomic_folder(run.remake.checkpoints / NAMES[0], sync=False) as folder:
        write_manifest(folder)
    restore(run)
    assert lost_weights(run, "best") and run.remake.exists
    fill(run.remake, b"again")
    restore(run)
    assert lost_weights(run, "last") is lost_weights(run, "best") is None and not run.remake.exists
    assert (run.checkpoints / NAMES[1] / "model.safetensors").read_bytes() == b"again"
    assert run.result_path.read_bytes() == before and dropped(run) == {} and run.read_issues() == []
    restore(run)


def test_what_is_there_is_never_replaced(run: RunFolder) -> None:
    with atomic_folder(run.checkpoints / NAMES[1], sync=False) as folder:
        (folder / "model.safetensors").write_bytes(b"first")
        write_manifest(folder)
    fill(run.remake.create(), b"again")
    restore(run)
    assert (run.checkpoints / NAMES[1] / "model.safetensors").read_bytes() == b"first"
    assert (run.checkpoints / NAMES[0] / "model.safetensors").read_bytes() == b"again"


def test_a_remake_that_comes_out_different_is_told(run: RunFolder) -> None:
    fill(run.remake.create(), loss=1.5)
    restore(run)
    (issue,) = run.read_issues()
    assert "came out different" in issue["message"]
    result = run.read_result()
    assert result is not None and result.metrics == {"val/loss": 1.0}


def test_a_remake_that_nothing_waits_for_goes(run: RunFolder) -> None:
    store = Store(run.path.parent.parent)
    run.remake.create()
    assert [r.path for r in removals(store, retention=NOTHING, pinned={"01"})] == []
    assert [r.path for r in collect(removals(store, retention=NOTHING))] == [run.remake.path]
    assert not run.remake.exists

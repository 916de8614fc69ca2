"""Frozen sources stay as long as anything leads back to them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ablab.contract.order import Order
from ablab.store.claims import acquire
from ablab.store.files import write_json
from ablab.store.layout import Store
from ablab.store.old_sources import old_sources
from ablab.store.retention import collect


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with sources a to e, frozen long ago."""
    store = Store(tmp_path / "lab")
    for name in "abcde":
        folder = store.root / "sources" / name
        folder.mkdir(parents=True)
        (folder / "code.py").write_text("pass\n")
        age(folder)
    return store


def age(path: Path) -> None:
    before = time.time() - 7200
    os.utime(path, (before, before))


def launch(store: Store, second: int, digest: str, *, study: str = "s") -> Path:
    folder = store.launch_folder(f"20260101-0000{second:02d}-abcdef")
    write_json(folder / "launch.json", {"study": study, "profile": "full", "source": {"digest": digest}})
    return folder


def names(store: Store) -> list[str]:
    return [removal.path.name for removal in old_sources(store)]


def test_what_runs_and_launches_need_stays(store: Store) -> None:
    names_of = {"task": "t", "study": "s", "profile": "full", "experiment": "A"}
    run = store.run("train-01").create()
    source = str(store.root / "sources" / "a")
    run.write_order(Order(key="01", stage="train", kind="train", folder=str(run.path), source=source, **names_of))
    living = launch(store, 1, "b", study="other")
    launch(store, 2, "c", study="other")
    with acquire(living / "launcher.json"):
        assert names(store) == ["d", "e"]
    assert names(store) == ["b", "d", "e"]


def test_what_was_frozen_just_now_stays(store: Store) -> None:
    os.utime(store.root / "sources" / "a")
    found = old_sources(store)
    assert [removal.path.name for removal in found] == ["b", "c", "d", "e"]
    assert all(removal.bytes == 5 and removal.files == 1 for removal in found)
    # A launch begins between the forecast and the work.
    os.utime(store.root / "sources" / "c")
    assert [removal.path.name for removal in collect(found)] == ["b", "d", "e"]
    assert sorted(path.name for path in (store.root / "sources").iterdir()) == ["a", "c"]


def test_a_store_without_sources_has_none(tmp_path: Path) -> None:
    assert old_sources(Store(tmp_path)) == []

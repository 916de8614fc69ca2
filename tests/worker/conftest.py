"""Orders for the tiny task, and one warm template for all tests of this folder."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ablab.contract.order import Order
from ablab.store.layout import RunFolder, Store

HERE = Path(__file__).parent


class Template:
    """A template process: `start` forks a worker, `wait` gives its exit status."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ablab.worker.template"], stdin=-1, stdout=-1, text=True, env=environment
        )
        self.said: queue.Queue[dict[str, Any]] = queue.Queue()
        self.exits: dict[int, int] = {}
        self.pids: queue.Queue[int] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            said = json.loads(line)
            if "exit" in said:
                self.exits[said["pid"]] = said["exit"]
            elif "order" in said:
                self.pids.put(said["pid"])

    def start(self, run: RunFolder) -> int:
        self.process.stdin.write(f"{run.order_path}\n")
        self.process.stdin.flush()
        return self.pids.get(timeout=120)

    def wait(self, pid: int, *, timeout: float = 120) -> int:
        limit = time.monotonic() + timeout
        while pid not in self.exits:
            assert time.monotonic() < limit, f"worker {pid} did not end"
            time.sleep(0.005)
        return self.exits[pid]

    def run(self, run: RunFolder) -> int:
        return self.wait(self.start(run))


@pytest.fixture(scope="session")
def template() -> Iterator[Template]:
    made = Template()
    yield made
    made.process.stdin.close()
    made.process.wait(timeout=30)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "lab")


@pytest.fixture
def make_run(store: Store) -> Callable[..., RunFolder]:
    """Write an order; `model` and `parameters` by keyword, everything else is the order's."""

    def make(name: str = "train-aa", *, kind: str = "train", parameters=None, model=None, **order: Any) -> RunFolder:
        run = store.run(name).create()
        if kind == "train":
            parameters = {"steps": 12, "batch": 8, "log_every": 4, **(parameters or {})}
        values = {"seed": 1, "task": "tiny.py:SPEC", "study_folder": str(HERE), **order}
        run.write_order(
            Order(
                key=run.key,
                stage=kind,
                kind=kind,
                study="s",
                profile="full",
                experiment="A",
                sections={"model": model or {}},
                parameters=parameters or {},
                folder=str(run.path),
                **values,
            )
        )
        return run

    return make


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}

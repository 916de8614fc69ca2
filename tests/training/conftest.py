"""A context without a worker, and the tiny task that the worker's tests use too."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from ablab.contract.order import Input, Numerics, Order, Resources
from ablab.contract.result import Outcome
from ablab.contract.training import Train
from ablab.training.loop import train

TINY = Path(__file__).parents[1] / "worker" / "tiny.py"


def load_tiny():
    if "ablab_tiny" not in sys.modules:
        spec = importlib.util.spec_from_file_location("ablab_tiny", TINY)
        module = importlib.util.module_from_spec(spec)
        sys.modules["ablab_tiny"] = module
        spec.loader.exec_module(module)
    return sys.modules["ablab_tiny"]


class FakeContext:
    """What the loop needs of a worker, kept in memory. `stop_at` asks for a stop once that many asks were made."""

    def __init__(self, folder: Path, *, seed: int = 1, stop_at: int | None = None, resources: Resources | None = None):
        self.order = Order(
            key="k", stage="train", kind="train", task="tiny", study="s", profile="full", experiment="A", seed=seed,
            folder=str(folder), resources=resources or Resources(),
        )  # fmt: skip
        self.folder = folder
        self.numerics = Numerics(precision=None)
        self.events: list[dict[str, Any]] = []
        self.told: dict[str, Any] = {}
        self.asked, self.stop_at = 0, stop_at

    @property
    def artifacts(self) -> Path:
        return self._made("artifacts")

    @property
    def checkpoints(self) -> Path:
        return self._made("checkpoints")

    def _made(self, name: str) -> Path:
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        return self.folder / name

    def event(self, e: str, /, **values: Any) -> None:
        self.events.append({"e": e, **values})

    def flush(self) -> None:
        return None

    def progress(self, done: float, total: float, *, unit: str = "") -> None:
        self.told["progress"] = done / total

    def state(self, **fields: Any) -> None:
        self.told.update(fields)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        yield

    def stop_requested(self) -> bool:
        self.asked += 1
        return self.stop_at is not None and self.asked >= self.stop_at

    def input(self, kind: str, *, stage: str | None = None) -> Input:
        raise KeyError(kind)

    def lines(self, e: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["e"] == e]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny():
    return load_tiny()


@pytest.fixture
def make_code(tiny) -> Callable[..., Any]:
    return lambda **model: tiny.Tiny({"model": tiny.Model(**model)})


@pytest.fixture
def context(tmp_path: Path) -> FakeContext:
    return FakeContext(tmp_path)


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., FakeContext]:
    return lambda name="run", **options: FakeContext(tmp_path / name, **options)


@pytest.fixture
def run_train(make_context, make_code) -> Callable[..., tuple[Outcome, FakeContext]]:
    """Train the tiny task in a folder of its own; parameters by keyword, model settings as `model`."""

    def run(name: str = "run", *, model: dict[str, Any] | None = None, options=None, **parameters: Any):
        context = make_context(name, **(options or {}))
        settings = {"steps": 20, "batch": 8, "log_every": 5, **parameters}
        return train(make_code(**(model or {})), Train.model_validate(settings), context), context

    return run

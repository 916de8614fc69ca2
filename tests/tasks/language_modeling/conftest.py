from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablab.contract.order import Input, Numerics, Order
from ablab.tasks.language_modeling.sections import Data, Model
from ablab.tasks.language_modeling.task import LanguageModeling

WORDS = ("the", "old", "house", "near", "seven", "cold", "rivers", "was", "sold", "again", "über", "日本")


class FakeContext:
    """The worker as a stage sees it, without a worker."""

    def __init__(self, folder: Path, order: Order) -> None:
        self.folder, self.order, self.numerics = folder, order, Numerics()
        self.done: list[tuple[float, float]] = []
        self.stop = False

    @property
    def artifacts(self) -> Path:
        path = self.folder / "artifacts"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def event(self, e: str, /, **values: Any) -> None: ...

    def progress(self, done: float, total: float, *, unit: str = "") -> None:
        self.done.append((done, total))

    def stop_requested(self) -> bool:
        return self.stop

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        yield


def make_context(folder: Path, **order: Any) -> FakeContext:
    fields = {"key": "k", "stage": "s", "kind": "prepare", "task": "language-modeling", "study": "t", "profile": "full"}
    return FakeContext(folder, Order(**{**fields, "experiment": "A", "folder": str(folder), **order}))


@pytest.fixture
def context(tmp_path: Path) -> FakeContext:
    return make_context(tmp_path / "stage")


@pytest.fixture
def contexts() -> Callable[..., FakeContext]:
    return make_context


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of words; every line is a document."""
    generator = np.random.default_rng(0)
    lines = [" ".join(generator.choice(WORDS, size=generator.integers(3, 12))) for _ in range(300)]
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def data(text_file: Path) -> Data:
    return Data(
        source="files",
        files=(str(text_file),),
        documents="lines",
        tokenizer={"name": "bpe", "vocabulary": 300},
        splits={"validation": 0.15, "test": 0.15},
    )


@pytest.fixture(scope="session")
def model() -> Model:
    return Model(width=16, layers=2, heads=2, context=12, dropout=0.0)


@pytest.fixture(scope="session")
def prepared(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Input:
    """A finished prepare run as another stage's input."""
    folder = tmp_path_factory.mktemp("runs") / "prepare-1"
    stage = make_context(folder)
    parameters = {"workers": 1}
    from ablab.tasks.language_modeling.config import Prepare

    LanguageModeling({"data": data}).prepare(Prepare(**parameters), stage)
    return Input(reference="prepare", stage="prepare", kind="prepare", key="1", path=str(folder))


@pytest.fixture
def task(model: Model, data: Data, prepared: Input) -> LanguageModeling:
    return LanguageModeling({"model": model, "data": data}, inputs=[prepared])

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ablab.contract.order import Numerics, Order
from ablab.contract.result import Outcome
from ablab.tasks.vision_language.benchmarks.config import BenchmarkSettings
from ablab.tasks.vision_language.benchmarks.engine import evaluate_benchmarks
from ablab.tasks.vision_language.benchmarks.protocol import Question
from tests.tasks.vision_language.benchmarks.official import OFFICIAL, Official


class FakeContext:
    """The worker as an evaluation sees it."""

    def __init__(self, folder: Path, **order: Any) -> None:
        fields = {"key": "k", "stage": "evaluate", "kind": "evaluate", "task": "vision-language", "study": "tiny"}
        self.folder, self.numerics = folder, Numerics()
        self.order = Order(**{**fields, "profile": "full", "experiment": "A1", "folder": str(folder), **order})
        self.stop_after: int | None = None
        self.told = 0

    @property
    def artifacts(self) -> Path:
        path = self.folder / "artifacts"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def progress(self, done: float, total: float, *, unit: str = "") -> None:
        assert done <= total
        self.told += 1

    def stop_requested(self) -> bool:
        return self.stop_after is not None and self.told >= self.stop_after


Answer = Callable[[Question], str]


class Bench:
    """Asks benchmarks with a function that answers one question."""

    def __init__(self, folder: Path) -> None:
        self.context = FakeContext(folder / "run", seed=7)
        self.folder = folder
        self.asked: list[list[str]] = []

    def ask(self, answer: Answer, benchmarks: dict[str, Any], **settings: Any) -> Outcome:
        def generate(questions: Sequence[Question]) -> list[str]:
            self.asked.append([one.id for one in questions])
            for one in questions:
                for picture in one.images:
                    assert picture.open().mode == "RGB"
            return [answer(one) for one in questions]

        given = BenchmarkSettings(benchmarks=benchmarks, **settings)
        return evaluate_benchmarks(generate, given, self.context, study_folder=self.folder)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(params=sorted(OFFICIAL))
def official(request: pytest.FixtureRequest, tmp_path: Path) -> Official:
    """One benchmark after the other, its official files written."""
    made = OFFICIAL[request.param](tmp_path)
    assert made.key == request.param.partition("@")[0]
    return made

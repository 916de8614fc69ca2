from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ablab.contract.order import Input, Numerics, Order
from ablab.contract.stages import Nothing
from ablab.tasks.summarization.config import TrainSummaries
from ablab.tasks.summarization.sections import Data, Model
from ablab.tasks.summarization.sections import Input as Shown
from ablab.tasks.summarization.task import Summarization

CONFIGS: dict[str, dict[str, Any]] = {
    "bart": {"model_type": "bart", "width": 16, "layers": 1, "heads": 2, "feedforward": 16, "positions": 256},
    "mt5": {"model_type": "mt5", "width": 16, "layers": 1, "heads": 2, "feedforward": 16},
    "t5": {"model_type": "t5", "width": 16, "layers": 1, "heads": 2, "feedforward": 16},
    "mbart": {"model_type": "mbart", "width": 16, "layers": 1, "heads": 2, "feedforward": 16, "positions": 256},
    "t5-v1.1": {
        "model_type": "t5",
        "width": 16,
        "layers": 1,
        "heads": 2,
        "feedforward": 16,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
    "llama": {"model_type": "llama", "width": 16, "layers": 1, "heads": 2, "feedforward": 16, "positions": 256},
}


class FakeContext:
    """The worker as a stage sees it, without a worker."""

    def __init__(self, folder: Path, order: Order) -> None:
        self.folder, self.order, self.numerics = folder, order, Numerics()
        self.stop = False

    @property
    def artifacts(self) -> Path:
        path = self.folder / "artifacts"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def event(self, e: str, /, **values: Any) -> None: ...

    def progress(self, done: float, total: float, *, unit: str = "") -> None: ...

    def stop_requested(self) -> bool:
        return self.stop

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        yield


def make_context(folder: Path, **order: Any) -> FakeContext:
    fields = {"key": "k", "stage": "s", "kind": "evaluate", "task": "summarization", "study": "t", "profile": "full"}
    return FakeContext(folder, Order(**{**fields, "experiment": "A", "folder": str(folder), **order}))


@pytest.fixture
def context(tmp_path: Path) -> FakeContext:
    return make_context(tmp_path / "stage")


@pytest.fixture
def contexts() -> Callable[..., FakeContext]:
    return make_context


@pytest.fixture(scope="session")
def data() -> Data:
    return Data(
        source="generated",
        size=60,
        tokenizer={"name": "bpe", "vocabulary": 500},
        pretraining_topics=("식당*", "job*", "면접"),
    )


@pytest.fixture(scope="session")
def prepared(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Input:
    """A finished prepare run as another stage's input."""
    folder = tmp_path_factory.mktemp("runs") / "prepare-1"
    Summarization({"data": data}).prepare(Nothing(), make_context(folder, kind="prepare"))
    return Input(reference="prepare", stage="prepare", kind="prepare", key="1", path=str(folder))


@pytest.fixture
def make(prepared: Input) -> Callable[..., Summarization]:
    """Return a maker of the task's code for a small model."""

    def build(
        name: str = "bart", *, shown: dict[str, Any] | None = None, train: dict[str, Any] | None = None, **model: Any
    ) -> Summarization:
        kind = "causal" if name == "llama" else "seq2seq"
        section = Model(**{"checkpoint": {"config": CONFIGS[name]}, "kind": kind, "dropout": 0.0, **model})
        given = Shown(**{"encoder_length": 64, "decoder_length": 24, **(shown or {})})
        parameters = TrainSummaries(**{"steps": 1, "batch": 6, **(train or {})})
        return Summarization({"model": section, "input": given}, inputs=[prepared], parameters=parameters)

    return build

"""The generated set, small, prepared once, and towers that take a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from ablab.contract.order import Input, Numerics, Order, Resources
from ablab.data.emoji import concepts
from ablab.data.mini_m2kr import write_mini_m2kr
from ablab.data.pairs import Pairs
from ablab.tasks.retrieval.config import RetrievalTrain
from ablab.tasks.retrieval.preparation import FOLDER, prepare
from ablab.tasks.retrieval.sections import Data, Loss, Model, Towers
from ablab.tasks.retrieval.task import Retrieval


class FakeContext:
    """The worker as a stage sees it, without a worker."""

    def __init__(self, folder: Path, **order: Any) -> None:
        fields = {"key": "k", "stage": "s", "kind": "prepare", "task": "retrieval", "study": "t", "profile": "full"}
        self.folder, self.numerics, self.stop = folder, Numerics(), False
        self.order = Order(**{**fields, "experiment": "A", "folder": str(folder), **order})

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


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated set's flat files about some of the bundled things."""
    folder = tmp_path_factory.mktemp("mini")
    write_mini_m2kr(folder, subsets=("okvqa", "oven"), concepts=concepts()[:200])
    return folder


@pytest.fixture(scope="session")
def data(files: Path) -> Data:
    names = {split: (str(files / f"okvqa_{split}.jsonl"),) for split in ("train", "val", "test")}
    pools = {split: (str(files / f"okvqa_passages_{split}.jsonl"),) for split in ("train", "val", "test")}
    return Data(
        source="files",
        queries=names,
        passages=pools,
        images=str(files / "images.tar"),
        image_size=16,
        tokenizer={"name": "bytes"},
    )


@pytest.fixture(scope="session")
def prepared(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Input:
    folder = tmp_path_factory.mktemp("runs") / "prepare-1"
    prepare(data, FakeContext(folder))
    return Input(reference="prepare", stage="prepare", kind="prepare", key="1", path=str(folder))


@pytest.fixture(scope="session")
def pairs(prepared: Input) -> Pairs:
    return Pairs(Path(prepared.path, "artifacts", FOLDER))


@pytest.fixture(scope="session")
def towers() -> Towers:
    text = {"model_type": "clip_text_model", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3,
            "num_attention_heads": 2, "max_position_embeddings": 24}  # fmt: skip
    vision = {"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3,
              "num_attention_heads": 2, "image_size": 16, "patch_size": 8}  # fmt: skip
    return Towers(text={"config": text}, vision={"config": vision}, tokens=24)


@pytest.fixture(scope="session")
def model() -> Model:
    return Model(width=16, heads=2, queries=4, output=8, dropout=0.0)


@pytest.fixture
def make_task(prepared: Input, towers: Towers, model: Model) -> Callable[..., Retrieval]:
    """Return the task for a train stage; sections and parameters by keyword."""

    def make(
        *,
        model: Model = model,
        loss: Loss | None = None,
        inputs: tuple[Input, ...] = (),
        resources: Resources | None = None,
        **train: Any,
    ) -> Retrieval:
        parameters = RetrievalTrain(**{"steps": 4, "batch": 8, **train})
        sections = {"towers": towers, "model": model, "loss": loss or Loss(temperature=0.1, score="mean")}
        return Retrieval(sections, inputs=(prepared, *inputs), parameters=parameters, resources=resources)

    return make


@pytest.fixture
def contexts() -> Callable[..., FakeContext]:
    return FakeContext

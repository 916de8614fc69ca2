"""A task small enough for tests: a regression and a character model, with dropout, ties and frozen matrices.

It is found by workers as `tiny.py:SPEC`, like any task in a user's file.
"""

from __future__ import annotations

import math
import os
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablab.contract.base import Strict, setting
from ablab.contract.failure import DataError
from ablab.contract.result import Outcome
from ablab.contract.seeds import stream_seed
from ablab.contract.task import Metric, StageSpec, TaskSpec
from ablab.contract.training import Train
from ablab.training.task import Losses

TEXT = ("the quick brown fox jumps over the lazy dog. " * 40).encode()


class Model(Strict):
    kind: str = setting("regression", "regression or characters")
    width: int = setting(16, "hidden width")
    dropout: float = setting(0.1, "dropout")
    poison: int = setting(-1, "sample whose target is not a number")
    hog: int = setting(0, "bytes that each sample's activations take")
    pause: float = setting(0.0, "seconds that each step takes longer")
    regenerable: bool = setting(False, "store the frozen matrix as its recipe")


class Nothing(Strict):
    pass


class Evaluate(Strict):
    split: str = setting("val", "split")
    batch: int = setting(8, "samples at once")


class Regression(nn.Module):
    """y = f(x), with a frozen random projection that can be made again from its seed."""

    def __init__(self, settings: Model, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.seed = seed
        torch.manual_seed(seed)
        self.inner = nn.Linear(4, settings.width)
        self.frozen = nn.Linear(settings.width, settings.width, bias=False)
        self.frozen.weight.data = self.regenerate("frozen.weight", seed)
        self.frozen.weight.requires_grad_(False)
        self.norm = nn.LayerNorm(settings.width)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(settings.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.norm(torch.relu(self.frozen(self.inner(x))))))[..., 0]

    def regenerable(self):
        return {"frozen.weight": self.seed} if self.settings.regenerable else {}

    def regenerate(self, name, recipe):
        generator = torch.Generator().manual_seed(recipe)
        return torch.randn(self.settings.width, self.settings.width, generator=generator) / self.settings.width**0.5


class Characters(nn.Module):
    """A next-byte model with a tied head."""

    def __init__(self, settings: Model, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(128, settings.width)
        self.mix = nn.GRU(settings.width, settings.width, batch_first=True)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(settings.width, 128, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.dropout(self.mix(self.embedding(tokens))[0]))


class RegressionData:
    def __init__(self, settings: Model, split: str) -> None:
        self.settings = settings
        self.samples = 50 if split == "train" else 20
        rng = np.random.default_rng(1 if split == "train" else 2)
        self.x = rng.normal(size=(self.samples, 4)).astype(np.float32)
        self.y = np.sin(self.x.sum(-1)).astype(np.float32)
        # Samples differ in weight, so that a mean of means would not be the mean.
        self.weights = (1 + np.arange(self.samples) % 3).astype(np.float32)
        if split == "train" and 0 <= settings.poison < self.samples:
            self.y[settings.poison] = math.nan

    def order(self, seed: int, epoch: int) -> np.ndarray:
        return np.random.default_rng(stream_seed(seed, "data-order", epoch)).permutation(self.samples)

    def batch(self, ids: np.ndarray, *, seed: int, step: int):
        if self.settings.poison == -2 and step == 3:
            raise DataError("rows.csv, row 7: not a number", file="rows.csv", row=7)
        return {
            "x": torch.from_numpy(self.x[ids]),
            "y": torch.from_numpy(self.y[ids]),
            "weight": torch.from_numpy(self.weights[ids]),
        }

    def weight(self, batch) -> float:
        return float(batch["weight"].sum())


class CharacterData:
    length = 16

    def __init__(self, split: str) -> None:
        half = len(TEXT) * 3 // 4
        text = TEXT[:half] if split == "train" else TEXT[half:]
        self.tokens = np.frombuffer(text, dtype=np.uint8).astype(np.int64)
        self.samples = (len(self.tokens) - 1) // self.length

    def order(self, seed: int, epoch: int) -> np.ndarray:
        return np.random.default_rng(stream_seed(seed, "data-order", epoch)).permutation(self.samples)

    def batch(self, ids: np.ndarray, *, seed: int, step: int):
        rows = [self.tokens[i * self.length : i * self.length + self.length + 1] for i in ids]
        return {"tokens": torch.from_numpy(np.stack(rows))}

    def weight(self, batch) -> float:
        return float(batch["tokens"].shape[0] * self.length)


class Tiny:
    def __init__(self, sections, *, inputs=(), study_folder=None) -> None:
        self.settings = sections.get("model", Model())
        self.inputs = inputs

    def model(self, *, seed: int) -> nn.Module:
        make = Characters if self.settings.kind == "characters" else Regression
        return make(self.settings, stream_seed(seed, "initialisation"))

    def data(self, split: str):
        return CharacterData(split) if self.settings.kind == "characters" else RegressionData(self.settings, split)

    def losses(self, model: nn.Module, batch) -> Losses:
        if model.training and self.settings.pause:
            time.sleep(self.settings.pause)
        if self.settings.kind == "characters":
            tokens = batch["tokens"]
            logits = model(tokens[:, :-1]).float()
            total = F.cross_entropy(logits.reshape(-1, 128), tokens[:, 1:].reshape(-1), reduction="sum")
            hits = (logits.argmax(-1) == tokens[:, 1:]).sum()
            return Losses(total=total, weight=tokens[:, 1:].numel(), terms={"hits": hits})
        if model.training and self.settings.hog:
            torch.ones(len(batch["x"]) * self.settings.hog, dtype=torch.uint8)
        error = (model(batch["x"]).float() - batch["y"]) ** 2 * batch["weight"]
        return Losses(total=error.sum(), weight=float(batch["weight"].sum()), terms={"squares": error.detach().sum()})

    def metrics(self, split: str, totals, weight: float) -> dict[str, float]:
        found = {f"{split}/loss": totals["loss"] / weight}
        if "hits" in totals:
            found[f"{split}/accuracy"] = totals["hits"] / weight
        return found

    def evaluate(self, model, parameters, context) -> Outcome:
        data = self.data(parameters.split)
        total = weight = 0.0
        for low in range(0, data.samples, parameters.batch):
            ids = np.arange(low, min(low + parameters.batch, data.samples))
            losses = self.losses(model, data.batch(ids, seed=0, step=0))
            total += losses.total.item()
            weight += losses.weight
        return Outcome(metrics={f"{parameters.split}/loss": total / weight})

    def prepare(self, parameters, context) -> Outcome:
        (context.artifacts / "data.txt").write_text("data")
        (context.artifacts / "shards").mkdir(exist_ok=True)
        (context.artifacts / "shards" / "0.bin").write_bytes(bytes(10))
        context.progress(1, 2, unit="files")
        artifacts = {"data": "artifacts/data.txt", "shards": "artifacts/shards"}
        return Outcome(facts={"pid": os.getpid()}, artifacts=artifacts)

    def facts(self, model, batch):
        return {"logits.scale": 1.0, "supervised.share": 1.0, "training": model.training}


SPEC = TaskSpec(
    name="tiny.py:SPEC",
    title="Tiny",
    sections={"model": Model},
    stages={
        "prepare": StageSpec(
            kind="prepare", parameters=Nothing, run="ablab.worker.stages.prepare:run", seeded=False, accelerator=False
        ),
        "train": StageSpec(
            kind="train",
            parameters=Train,
            run="ablab.worker.stages.train:run",
            sections=("model",),
            makes_checkpoints=True,
        ),
        "evaluate": StageSpec(
            kind="evaluate", parameters=Evaluate, run="ablab.worker.stages.evaluate:run", inputs=("train",)
        ),
    },
    pipeline={"train": {}},
    metrics=(
        Metric(name="*/loss", direction="lower", description="loss"),
        Metric(name="*/accuracy", direction="higher", description="accuracy"),
    ),
    code="tiny.py:Tiny",
)

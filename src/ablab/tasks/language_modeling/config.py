"""What the language-modelling task declares to the control plane: its sections, stages and metrics; no torch.

The sections `model` and `data` describe a decoder-only transformer and the text it is trained on. How they are
computed is `task.py`'s; what makes a study of them unsound is `audits.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

from pydantic import model_validator

from ablab.contract import stages
from ablab.contract.base import Strict, setting
from ablab.contract.registry import is_file_reference
from ablab.contract.task import DataReference, Metric, Sections, TaskSpec
from ablab.tasks.language_modeling.sections import Data, Model


class Prepare(Strict):
    """Parameters of a prepare stage: how the shards are written."""

    workers: int | None = setting(None, "Processes that tokenize; null takes the cores.", ge=1, keyed=False)
    shard_tokens: int = setting(100_000_000, "Tokens of a shard file.", ge=1, keyed=False, unit="tokens")


class Evaluate(Strict):
    """Parameters of an evaluate stage: every token of the split is a target once."""

    split: Literal["val", "test", "train"] = setting("test", "Split to evaluate on.")
    window: int | None = setting(None, "Tokens a prediction may see; null is the model's context.", ge=1, unit="tokens")
    stride: int | None = setting(
        None,
        "Tokens the window moves; null is the window (no overlap). Smaller strides give each target more context.",
        ge=1,
        unit="tokens",
    )
    batch: int = setting(8, "Windows at once.", ge=1, keyed=False)
    metrics: tuple[str, ...] = setting(
        (),
        "Metrics of one's own, file.py:Name: def Name(nats, tokens) takes the nats of every target and its token, in "
        "order, and returns {name: value}.",
    )
    examples: int = setting(3, "Continuations shown.", ge=0)
    continuation: int = setting(48, "Tokens of a shown continuation.", ge=1, unit="tokens")

    @model_validator(mode="after")
    def _stride_fits(self) -> Evaluate:
        wrong = next((name for name in self.metrics if not is_file_reference(name)), None)
        if wrong is not None:
            raise ValueError(f"metrics are file.py:Name; found {wrong!r}")
        if self.stride is not None and self.window is not None and self.stride > self.window:
            raise ValueError(f"stride {self.stride} exceeds window {self.window}: tokens between would be left out")
        return self


def _references(sections: Sections, _: Any) -> list[DataReference]:
    """Return what the prepare stage reads from outside the store."""
    data = sections["data"]
    assert isinstance(data, Data)
    hub = data.hub()
    if hub is not None:
        return [DataReference(kind="hub", name=hub[0], path="data.source")]
    if is_file_reference(data.source):
        return []
    if data.source == "files":
        given = {"files": data.files, "validation_files": data.validation_files, "test_files": data.test_files}
        return [
            DataReference(kind="file", name=name, path=f"data.{field}[{i}] ({_format(name)})")
            for field, names in given.items()
            for i, name in enumerate(names)
        ]
    return [DataReference(kind="bundled", name=data.source, path="data.source")]


def _format(name: str) -> str:
    """Return how a file is read, by its suffix: the same bytes read otherwise are other data."""
    suffixes = [part.lower() for part in name.rsplit("/", 1)[-1].split(".")[1:]]
    if suffixes and suffixes[-1] in {"gz", "xz", "bz2"}:
        suffixes.pop()
    known = {"jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl", "parquet": "parquet"}
    return known.get(suffixes[-1], "text") if suffixes else "text"


def _reader_files(sections: Sections, _: Any) -> list[str]:
    """Return the code file of a reader of one's own."""
    data = sections["data"]
    assert isinstance(data, Data)
    return _files([data.source])


def _model_files(sections: Sections, _: Any) -> list[str]:
    """Return the code file of an initialisation of one's own."""
    model = sections["model"]
    assert isinstance(model, Model)
    return _files([model.initialization])


def _evaluation_files(sections: Sections, parameters: Any) -> list[str]:
    """Return the code files of metrics of one's own."""
    return [*_model_files(sections, parameters), *_files(parameters.metrics)]


def _files(references: Iterable[str | None]) -> list[str]:
    """Return the files of those that are file.py:Name."""
    return [reference.rpartition(":")[0] for reference in references if reference and is_file_reference(reference)]


#: Metrics of an evaluation; metrics of one's own may have any name.
_EVALUATED = ("*/loss", "*/perplexity", "*/bits_per_byte", "*/word_perplexity")


def _evaluated(parameters: Any) -> tuple[str, ...] | None:
    """Return the metrics an evaluation yields."""
    return None if parameters.metrics else _EVALUATED


PREPARE = replace(
    stages.PREPARE,
    parameters=Prepare,
    references=_references,
    files=_reader_files,
    summary="read, split and tokenize the text into memory-mapped shards",
)

TRAIN = replace(
    stages.TRAIN,
    sections=("model",),
    files=_model_files,
    metrics=("train/loss", "val/loss", "val/perplexity", "val/bits_per_byte"),
    summary="train the model from its initialisation",
)

EVALUATE = replace(
    stages.EVALUATE,
    parameters=Evaluate,
    sections=("model",),
    inputs=("prepare", "train", "merge"),
    files=_evaluation_files,
    metrics=_EVALUATED,
    yields=_evaluated,
    summary="perplexity, bits per byte and word perplexity of a whole split",
)

SPEC = TaskSpec(
    name="language-modeling",
    title="Language modelling",
    sections={"model": Model, "data": Data},
    stages={spec.kind: spec for spec in (PREPARE, TRAIN, EVALUATE)},
    pipeline={"prepare": {}, "train": {}, "evaluate": {}},
    metrics=(
        Metric(
            name="*/loss",
            direction="lower",
            unit="nats",
            description="Mean negative log-likelihood of a target token: total nats / total target tokens.",
        ),
        Metric(
            name="*/perplexity",
            direction="lower",
            log_scale=True,
            description="exp(total nats / total target tokens) over the whole split; depends on the tokenizer.",
        ),
        Metric(
            name="*/bits_per_byte",
            direction="lower",
            unit="bits",
            description="Total nats / (ln 2 x UTF-8 bytes of the targets); special tokens have no bytes.",
        ),
        Metric(
            name="*/word_perplexity",
            direction="lower",
            log_scale=True,
            description="exp(total nats / whitespace-separated words of the original text).",
        ),
    ),
    audits="ablab.tasks.language_modeling.audits:AUDITS",
    code="ablab.tasks.language_modeling.task:LanguageModeling",
    scaffold="ablab.tasks.language_modeling:scaffold.yaml",
)

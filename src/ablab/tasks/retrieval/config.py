"""What the retrieval task declares to the control plane: parameters of its stages, stage kinds, metrics; no torch.

The blocks beside the pipeline are `sections.py`'s, what makes a study unsound is `audits.py`'s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import model_validator

from ablab.contract import stages
from ablab.contract.base import Strict, setting
from ablab.contract.models import model_references
from ablab.contract.registry import is_file_reference
from ablab.contract.task import Complaint, DataReference, Metric, Sections, StageSpec, TaskSpec
from ablab.contract.training import Train
from ablab.contract.training import Validation as SharedValidation
from ablab.tasks.retrieval.sections import Data, Loss, Model, Towers

__all__ = ["SPEC", "Data", "Loss", "Model", "Towers"]


class Validation(SharedValidation):
    """When and on how much of the validation split a run is validated, in groups of a batch's size."""

    batch: int | None = setting(1, "Groups at once; the measure does not depend on it.", ge=1, keyed=False)


class Pretrain(Train):
    """Parameters of a pretrain stage: image and text of a passage found from each other, as CLIP is trained."""

    width: int = setting(128, "Width in which image and text are compared.", ge=1)
    temperature: float = setting(0.07, "Start of the learnt temperature.", ge=0.01)
    chunk: int | None = setting(None, "Items the towers take at once; null takes the batch.", ge=1, keyed=False)
    validation: Validation = setting(default_factory=Validation, description="Validation schedule.")
    images: float = setting(0.0, "Weight of finding another image of the same thing, beside its text.", ge=0)
    augmentation: float = setting(0.0, "Largest random move of an image, as a share of its side.", ge=0, le=0.5)
    per_seed: bool = setting(False, "Pretrain anew for every seed; otherwise once for all of them.")


class RetrievalTrain(Train):
    """Parameters of a train stage."""

    split: Literal["train", "val", "test"] = setting("train", "Split that is trained on; others to time an epoch.")
    sampler: Literal["random", "distinct"] = setting(
        "random", "distinct: no two queries of a batch share a positive, as far as the data allows."
    )
    validation: Validation = setting(default_factory=Validation, description="Validation schedule.")
    augmentation: float = setting(0.0, "Largest random move of an image, as a share of its side.", ge=0, le=0.5)
    negatives: int = setting(0, "Mined negatives a query, from a mine stage in `needs`.", ge=0)
    chunk: int | None = setting(
        None,
        "Gradient cache: items the encoder takes at once; null takes the batch. Less memory, more time, same loss.",
        ge=1,
        keyed=False,
    )


class Search(Strict):
    """What stages that encode and search share."""

    batch: int = setting(64, "Items encoded at once.", ge=1, keyed=False)
    split: Literal["val", "test", "train"] = setting(
        "test", "Split whose queries are asked and whose pool is searched."
    )


class Evaluate(Search):
    """Parameters of an evaluate stage: all queries of the split over its whole pool."""

    cutoffs: tuple[int, ...] = setting((1, 5, 10), "K of hit rate and pseudo-recall.", min_length=1)
    depth: int = setting(10, "K of mrr and ndcg.", ge=1)
    examples: int = setting(4, "Queries shown with what was found.", ge=0)

    @model_validator(mode="after")
    def _cutoffs_count(self) -> Evaluate:
        if min(self.cutoffs) < 1 or list(self.cutoffs) != sorted(set(self.cutoffs)):
            raise ValueError(f"cutoffs: expected rising numbers from 1, found {list(self.cutoffs)}")
        return self


class Probe(Search):
    """Parameters of a probe stage: hit rate with parts of queries or passages taken away from a trained model."""

    cutoff: int = setting(5, "K of the hit rate.", ge=1)


class Bm25(Strict):
    """Parameters of a bm25 stage: the baseline that sees no picture and learns nothing."""

    split: Literal["val", "test", "train"] = setting("test", "Split whose queries are asked.")
    cutoffs: tuple[int, ...] = setting((1, 5, 10), "K of hit rate and pseudo-recall.", min_length=1)
    depth: int = setting(10, "K of mrr and ndcg.", ge=1)
    instruction: bool = setting(False, "Ask with the instruction too, not the question alone.")
    k1: float = setting(1.5, "Saturation of term counts.", gt=0)
    b: float = setting(0.75, "Normalisation by length.", ge=0, le=1)


class Mine(Strict):
    """Parameters of a mine stage: passages an earlier model takes for positives and are none."""

    batch: int = setting(64, "Items encoded at once.", ge=1, keyed=False)
    negatives: int = setting(4, "Negatives kept a query, the hardest first.", ge=1)
    skip: int = setting(0, "Leave out the first N: they may be positives that nobody marked.", ge=0)
    answers: bool = setting(True, "Leave out passages that hold an answer of the query.")


class Index(Strict):
    """Parameters of an index stage: the vectors of a pool, to be searched."""

    batch: int = setting(64, "Items encoded at once.", ge=1, keyed=False)
    split: Literal["val", "test", "train"] = setting("test", "Pool.")
    form: Literal["exact", "8-bit", "residual"] = setting(
        "exact", "8-bit and residual-coded are smaller than exact, and state what they lose."
    )
    precision: Literal["fp32", "bf16"] = setting(
        "fp32", "Of the exact vectors; bf16 takes less room and time, and states what rounding loses."
    )
    bits: Literal[1, 2, 4, 8] = setting(4, "Bits of a number of a residual.")
    loss_queries: int = setting(256, "Queries by which an index states its loss.", ge=1)


class Ask(Search):
    """Parameters of a search stage: one query of one's own."""

    text: str | None = setting(None, "Text of the query, without instruction.", min_length=1)
    image: str | None = setting(None, "Image file of the query.")
    instruction: str | None = setting(
        None, "Instruction before the text; null takes the one most queries of the split begin with."
    )
    top: int = setting(10, "Passages shown.", ge=1)

    @model_validator(mode="after")
    def _something_is_asked(self) -> Ask:
        if self.text is None and self.image is None:
            raise ValueError("give a text, an image, or both")
        return self


def _references(sections: Sections, _: Any) -> list[DataReference]:
    """Return what the prepare stage reads from outside the store."""
    data = sections["data"]
    assert isinstance(data, Data)
    images = [] if data.images is None else [_images(data.images)]
    if data.source == "mini-m2kr":
        return [DataReference(kind="bundled", name=name, path="data.source") for name in ("emoji", "wordnet")]
    if data.hub is not None:
        return [DataReference(kind="hub", name=data.hub, path="data.source"), *images]
    files = [
        DataReference(kind="file", name=name, path=f"data.{field}.{split}[{i}]")
        for field, given in (("queries", data.queries), ("passages", data.passages))
        for split in ("train", "val", "test")
        for i, name in enumerate(given.of(split))
    ]
    return [*files, *images]


def _images(name: str) -> DataReference:
    return DataReference(kind="file" if name.endswith(".tar") else "folder", name=name, path="data.images")


def _reader_files(sections: Sections, _: Any) -> list[str]:
    """Return the code file of a reader of one's own."""
    data = sections["data"]
    assert isinstance(data, Data)
    return [data.source.rpartition(":")[0]] if is_file_reference(data.source) else []


def _tower_references(sections: Sections, _: Any) -> list[DataReference]:
    """Return the models that a stage starts from."""
    towers = sections["towers"]
    assert isinstance(towers, Towers)
    named = {"pair": towers.pair, "text": towers.text, "vision": towers.vision}
    return [each for name, given in named.items() for each in model_references(given, path=f"towers.{name}")]


def _samples(sections: Sections, _: Any) -> dict[str, int]:
    """Return the queries that a prepare stage will find, where its section tells."""
    data = sections["data"]
    assert isinstance(data, Data)
    return data.counts


def _couples(_: Sections, __: Any) -> bool:
    """Every loss of this task tells a sample from the others of its batch."""
    return True


def _whole_batches(_: Sections, parameters: Any, __: tuple[str, ...] | None) -> list[Complaint]:
    """Complain about a micro-batch: negatives would be lost."""
    wrong = isinstance(parameters, Train) and parameters.micro_batch not in (None, parameters.batch)
    message = (
        f"a micro-batch of {parameters.micro_batch} would leave every query {parameters.micro_batch - 1} negatives "
        f"instead of {parameters.batch - 1}; save memory with chunk, which changes nothing else"
        if wrong
        else ""
    )
    return [Complaint(path="micro_batch", message=message, suggestion="chunk")] if wrong else []


PREPARE = replace(
    stages.PREPARE,
    references=_references,
    samples=_samples,
    files=_reader_files,
    summary="read queries, passages and images into one form",
)

PRETRAIN = replace(
    stages.TRAIN,
    kind="pretrain",
    version=2,
    parameters=Pretrain,
    sections=("towers",),
    seeded=lambda _, parameters: bool(parameters.per_seed),
    inputs=("prepare", "pretrain", "train", "mine"),
    references=_tower_references,
    couples=_couples,
    check=_whole_batches,
    code="ablab.tasks.retrieval.pretraining:TowerPretraining",
    metrics=("train/loss", "val/loss", "val/r_at_1"),
    summary="train the towers on images and texts of train passages, from each to the other",
)

TRAIN = replace(
    stages.TRAIN,
    version=2,
    parameters=RetrievalTrain,
    sections=("towers", "model", "loss"),
    inputs=("prepare", "pretrain", "train", "mine"),
    references=_tower_references,
    couples=_couples,
    check=_whole_batches,
    metrics=("train/loss", "train/r_at_1", "val/loss", "val/r_at_1"),
    summary="train towers and fusion to find a query's passages in the batch",
)

MINE = replace(
    stages.EVALUATE,
    kind="mine",
    version=2,
    parameters=Mine,
    sections=("towers", "model"),
    summary="find each train query's hardest negatives with an earlier stage's model",
)

INDEX = replace(
    stages.EVALUATE,
    kind="index",
    parameters=Index,
    sections=("towers", "model"),
    summary="encode a pool of passages, to be searched",
)

ASK = replace(
    stages.EVALUATE,
    kind="search",
    parameters=Ask,
    sections=("towers", "model"),
    inputs=("prepare", "train", "index"),
    summary="find passages for one query of one's own",
)

#: Metrics of an evaluation, over the whole pool.
_SCORES = ("hit_at_*", "pseudo_recall_at_*", "mrr_at_*", "ndcg_at_*")
_EVALUATED = tuple(f"*/{score}" for score in _SCORES)

EVALUATE = replace(
    stages.EVALUATE,
    parameters=Evaluate,
    sections=("towers", "model"),
    inputs=("prepare", "train", "index"),
    metrics=_EVALUATED,
    summary="hit rate, pseudo-recall, mrr and ndcg over the whole pool",
)

PROBE = replace(
    stages.EVALUATE,
    kind="probe",
    parameters=Probe,
    sections=("towers", "model"),
    metrics=("probe/*/hit_at_*",),
    summary="hit rate with text or image of queries or passages taken away",
)

BM25 = StageSpec(
    kind="bm25",
    version=2,
    parameters=Bm25,
    seeded=False,
    run="ablab.tasks.retrieval.baseline:run",
    inputs=("prepare",),
    accelerator=False,
    metrics=_EVALUATED,
    summary="BM25 over the texts: sees no picture, learns nothing",
)

SPEC = TaskSpec(
    name="retrieval",
    title="Multimodal retrieval",
    sections={"data": Data, "towers": Towers, "model": Model, "loss": Loss},
    stages={spec.kind: spec for spec in (PREPARE, PRETRAIN, TRAIN, MINE, INDEX, EVALUATE, PROBE, BM25, ASK)},
    pipeline={"prepare": {}, "train": {}, "evaluate": {}},
    metrics=(
        Metric(
            name="*/loss",
            direction="lower",
            unit="nats",
            description="Mean negative log-likelihood of a query's positive among the passages of its batch.",
        ),
        Metric(
            name="*/r_at_1",
            direction="higher",
            description="Share of queries whose best passage of the batch is a positive; chance is 1 / batch.",
        ),
        Metric(
            name="*/image_r_at_1",
            direction="higher",
            description="The same of a pretrain stage's images, found from another drawing of the same thing.",
        ),
        Metric(
            name="*/hit_at_*",
            direction="higher",
            description='Share of queries with a positive among the first K of the pool; M2KR calls it "Recall@K".',
        ),
        Metric(
            name="*/pseudo_recall_at_*",
            direction="higher",
            description="Share of queries one of whose answers is a substring of any of the first K passages.",
        ),
        Metric(
            name="*/mrr_at_*", direction="higher", description="Mean of 1 / rank of the first positive among K, else 0."
        ),
        Metric(name="*/ndcg_at_*", direction="higher", description="Normalised discounted cumulative gain at K."),
    ),
    audits="ablab.tasks.retrieval.audits:AUDITS",
    code="ablab.tasks.retrieval.task:Retrieval",
    scaffold="ablab.tasks.retrieval:scaffold.yaml",
    preload=(
        "ablab.tasks.retrieval.task",
        "ablab.tasks.retrieval.evaluation",
        "transformers.models.clip.modeling_clip",
    ),
)

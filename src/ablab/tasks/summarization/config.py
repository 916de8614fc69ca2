"""What the summarisation task declares to the control plane: sections, stages and metrics; no torch.

`model` says what is trained, `data` which dialogues, `input` what of a dialogue the model sees, `pretraining` how a
backbone that no hub offers is made first. What makes such a study unsound is `audits.py`'s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from ablab.contract import stages
from ablab.contract.base import Strict, setting
from ablab.contract.decoding import Decoding, DecodingSweep
from ablab.contract.models import ModelReference, model_references
from ablab.contract.registry import is_file_reference
from ablab.contract.task import DataReference, Metric, Sections, StageSpec, TaskSpec
from ablab.contract.training import Train
from ablab.tasks.summarization.sections import Data, Input, Model, Pretraining, Split


class Batching(Strict):
    """How samples are put together."""

    group: bool = setting(True, "Steps hold dialogues of similar length; false mixes lengths.")
    tokens: int | None = setting(
        None,
        "Most tokens of a micro-batch, padding included: a step is cut into as many as it needs; null is by samples.",
        ge=64,
        keyed=False,
        unit="tokens",
    )


class TrainSummaries(Train):
    """Parameters of a train stage: the loop's, and how targets and batches are made."""

    label_smoothing: float = setting(0.0, "Share of the target spread over the vocabulary (Szegedy 2016).", ge=0, lt=1)
    batching: Batching = setting(default_factory=Batching, description="How samples are put together.")


class Rouge(Strict):
    """How summaries are scored."""

    tokenizer: str = setting(
        "korean",
        "korean: morphemes by kiwipiepy, tags protected; words: by whitespace and punctuation; characters; ascii: "
        "letters a-z and digits only, as the common default does.",
    )
    also: tuple[str, ...] = setting(
        (), "More tokenizers to score by, as rouge1_<name>, ...: numbers elsewhere are often by whitespace words."
    )
    references: Literal["mean", "max"] = setting("mean", "What becomes of several references' scores.")
    samples: int = setting(1000, "Bootstrap samples of the intervals over examples.", ge=0)


class BertScore(Strict):
    """An encoder whose hidden states compare summaries with references, beside ROUGE."""

    encoder: ModelReference = setting(..., "Encoder with its tokenizer: a hub name or a folder.")
    layer: int | None = setting(
        None, "Hidden states that are compared, 0 being the embeddings; null is the last.", ge=0
    )


class Evaluate(Strict):
    """Parameters of an evaluate stage: summaries are generated, scored and handed in."""

    split: Split = setting("test", "Split to summarise and score; submission has no references, and yields no scores.")
    submit: bool = setting(
        True,
        "Also summarise the split submission where the data has it; submission.csv is of that split, else of this.",
    )
    decoding: Decoding = setting(
        default_factory=Decoding, description="How summaries are generated; a decode-sweep that is needed decides it."
    )
    rouge: Rouge = setting(default_factory=Rouge, description="How summaries are scored.")
    bertscore: BertScore | None = setting(None, "Also score by BERTScore F1, as bertscore; only one encoder compares.")
    batch: int = setting(64, "Dialogues generated at once.", ge=1, keyed=False)
    batch_tokens: int | None = setting(None, "Most tokens at once: inputs, and beams x outputs.", ge=64, keyed=False)
    examples: int = setting(3, "Best and worst examples shown.", ge=0)


class DecodeSweep(DecodingSweep):
    """Parameters of a decode-sweep stage: the decoding is chosen on a split that no verdict is given on."""

    split: Literal["val", "train"] = setting("val", "Split the decodings are compared on.")
    metric: Literal["score", "rouge1", "rouge2", "rougeL"] = setting("score", "What the best decoding has most of.")
    rouge: Rouge = setting(default_factory=Rouge, description="How summaries are scored.")
    dialogues: int | None = setting(None, "Summarise the first N dialogues of the split; null takes all.", ge=1)
    batch: int = setting(64, "Dialogues generated at once.", ge=1, keyed=False)
    batch_tokens: int | None = setting(None, "Most tokens at once: inputs, and beams x outputs.", ge=64, keyed=False)


class Baseline(Strict):
    """Parameters of a baseline stage: summaries without a model."""

    method: Literal["lead", "copy"] = setting("lead", "lead: the first `turns` turns; copy: the whole dialogue.")
    turns: int = setting(3, "Turns of lead.", ge=1)
    split: Literal["val", "test", "train"] = setting("test", "Split to summarise.")
    rouge: Rouge = setting(default_factory=Rouge, description="How summaries are scored.")
    examples: int = setting(3, "Best and worst examples shown.", ge=0)


def _data_references(sections: Sections, _: Any) -> list[DataReference]:
    """Return what a prepare stage reads from outside the store."""
    data = sections["data"]
    assert isinstance(data, Data)
    if data.hub:
        return [DataReference(kind="hub", name=data.source, path="data.source")]
    given = {name: getattr(data, name) for name in ("files", "validation_files", "test_files", "submission_files")}
    return [
        DataReference(kind="file", name=name, path=f"data.{field}[{index}]")
        for field, names in given.items()
        for index, name in enumerate(names)
    ]


def _model_references(sections: Sections, _: Any) -> list[DataReference]:
    """Return the checkpoint a stage reads."""
    model = sections["model"]
    assert isinstance(model, Model)
    return model_references(model.checkpoint, path="model.checkpoint")


def _evaluated_references(sections: Sections, parameters: Any) -> list[DataReference]:
    """Return the checkpoint an evaluation reads, and the encoder it scores by."""
    extra = parameters.bertscore
    found = _model_references(sections, parameters)
    return (
        found
        if extra is None
        else [*found, *model_references(extra.encoder, path="pipeline.evaluate.bertscore.encoder")]
    )


def _rouge_files(_: Sections, parameters: Any) -> list[str]:
    """Return the code files of ROUGE tokenizers of one's own."""
    names = (parameters.rouge.tokenizer, *parameters.rouge.also)
    return [name.rpartition(":")[0] for name in names if is_file_reference(name)]


#: Metrics of a split that was summarised.
_SCORES = (
    "*/rouge1", "*/rouge2", "*/rougeL", "*/score", "*/rouge1_*", "*/rouge2_*", "*/rougeL_*", "*/score_*", "*/length",
    "*/empty",
)  # fmt: skip
_LOSSES = ("train/loss", "val/loss", "val/perplexity", "val/accuracy")

PREPARE = replace(
    stages.PREPARE,
    references=_data_references,
    summary="read, clean and divide the dialogues; train a tokenizer where one is asked for",
)

PRETRAIN = replace(
    stages.TRAIN,
    kind="pretrain",
    parameters=TrainSummaries,
    sections=("model", "pretraining"),
    seeded=False,
    references=_model_references,
    metrics=_LOSSES,
    summary="make a backbone on dialogues of other topics, once for all arms and seeds",
)

TRAIN = replace(
    stages.TRAIN,
    parameters=TrainSummaries,
    sections=("model", "input"),
    inputs=("prepare", "pretrain"),
    references=_model_references,
    metrics=_LOSSES,
    summary="fine-tune on summaries, whole or through adapters",
)

EVALUATE = replace(
    stages.EVALUATE,
    parameters=Evaluate,
    sections=("model", "input"),
    inputs=("prepare", "pretrain", "train", "decode-sweep"),
    references=_evaluated_references,
    files=_rouge_files,
    metrics=(*_SCORES, "*/bertscore"),
    summary="generate summaries of a split, score them by ROUGE, write the submission",
)

DECODE_SWEEP = replace(
    stages.EVALUATE,
    kind="decode-sweep",
    parameters=DecodeSweep,
    sections=("model", "input"),
    inputs=("prepare", "pretrain", "train"),
    references=_model_references,
    files=_rouge_files,
    metrics=_SCORES,
    summary="choose a decoding on the validation split, without training again",
)

BASELINE = StageSpec(
    kind="baseline",
    parameters=Baseline,
    seeded=False,
    run="ablab.tasks.summarization.baselines:run",
    inputs=("prepare",),
    accelerator=False,
    files=_rouge_files,
    metrics=_SCORES,
    summary="summaries without a model: the first turns, or the whole dialogue",
)

SPEC = TaskSpec(
    name="summarization",
    title="Summarisation",
    sections={"model": Model, "data": Data, "input": Input, "pretraining": Pretraining},
    stages={spec.kind: spec for spec in (PREPARE, PRETRAIN, TRAIN, DECODE_SWEEP, EVALUATE, BASELINE)},
    pipeline={"prepare": {}, "train": {}, "evaluate": {}},
    metrics=(
        Metric(
            name="*/rouge1",
            direction="higher",
            unit="%",
            description="ROUGE-1 F1 in percent: unigrams counted with clipping, tokens by rouge.tokenizer.",
        ),
        Metric(name="*/rouge2", direction="higher", unit="%", description="ROUGE-2 F1 in percent: bigrams."),
        Metric(
            name="*/rougeL", direction="higher", unit="%", description="ROUGE-L F1 in percent: longest common sequence."
        ),
        Metric(
            name="*/score",
            direction="higher",
            description="The competition's score: the mean of ROUGE-1, ROUGE-2 and ROUGE-L F1, in percent.",
        ),
        Metric(
            name="*/rouge*_*", direction="higher", unit="%", description="The same F1 by the tokenizer that is named."
        ),
        Metric(name="*/score_*", direction="higher", description="The same score by the tokenizer that is named."),
        Metric(
            name="*/bertscore",
            direction="higher",
            unit="%",
            description="BERTScore F1 in percent (arXiv 1904.09675), no baseline subtracted; depends on the encoder.",
        ),
        Metric(name="*/length", direction="higher", unit="tokens", description="Mean tokens of a summary, by ROUGE's."),
        Metric(name="*/empty", direction="lower", description="Share of summaries that are empty; they score 0."),
        Metric(
            name="*/loss",
            direction="lower",
            unit="nats",
            description="Mean negative log-likelihood of a summary's token, teacher-forced, without smoothing.",
        ),
        Metric(
            name="*/perplexity",
            direction="lower",
            log_scale=True,
            description="exp of the loss; depends on the tokenizer.",
        ),
        Metric(name="*/accuracy", direction="higher", description="Share of summary tokens predicted, teacher-forced."),
    ),
    audits="ablab.tasks.summarization.audits:AUDITS",
    code="ablab.tasks.summarization.task:Summarization",
    scaffold="ablab.tasks.summarization:scaffold.yaml",
    preload=(
        "ablab.tasks.summarization.task",
        "ablab.tasks.summarization.evaluation",
        "ablab.tasks.summarization.baselines",
        "transformers.models.mt5.modeling_mt5",
        "transformers.models.bart.modeling_bart",
        "transformers.generation.utils",
        "transformers.tokenization_utils_tokenizers",
        "peft",
        "kiwipiepy",
    ),
)

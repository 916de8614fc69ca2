"""Summarise a split with a trained model, score it, and say what was cut off."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ablab.contract.context import Context
from ablab.contract.decoding import Decoding
from ablab.contract.failure import StopRequested
from ablab.contract.result import Outcome, Series, Table
from ablab.data.dialogues import Dialogue
from ablab.generation.choice import chosen_decoding
from ablab.generation.decoding import generate
from ablab.tasks.summarization.config import Evaluate
from ablab.tasks.summarization.families import FAMILIES
from ablab.tasks.summarization.scoring import length_histogram, score, shown, write_predictions, write_submission
from ablab.tasks.summarization.tokens import Encoded, Lengths

if TYPE_CHECKING:
    from ablab.tasks.summarization.task import Summarization

#: Points of the curve of what a limit cuts off.
_POINTS = 24


def evaluate(code: Summarization, model: nn.Module, parameters: Evaluate, context: Context) -> Outcome:
    """Return scores of a split, its predictions and submission as artifacts, and what is shown.

    Raises:
        StopRequested: a stop was asked for.
        ConfigError: there is no such split.
    """
    rows = code.prepared.rows(parameters.split)
    encoded = code.encoded(parameters.split)
    handed_in = parameters.submit and parameters.split != "submission" and "submission" in code.prepared.splits
    decoding = chosen_decoding(context.order.inputs, parameters.decoding)

    def written(rows: Sequence[Encoded]) -> list[list[int]]:
        sizes = {"batch": parameters.batch, "tokens": parameters.batch_tokens}
        return summaries(code, model, rows, decoding, context, **sizes)

    outputs = written(encoded)
    texts = [code.encoder.decode(ids) for ids in outputs]
    scored = None
    if all(row.summaries for row in rows):
        folder, threads = context.order.study_folder, context.numerics.threads
        scored = score(rows, texts, parameters.rouge, folder=folder, threads=threads)
    lengths = code.encoder.lengths
    evaluation = shown(
        rows,
        texts,
        scored,
        name=f"{parameters.split} split",
        examples=parameters.examples,
        tables=(_truncated(encoded, lengths),),
        series=(cut_curve(encoded, lengths),),
        distributions=(
            length_histogram("dialogue", [row.whole_source for row in encoded]),
            length_histogram("summary written", [len(ids) for ids in outputs]),
        ),
    )
    facts: dict[str, Any] = {
        "evaluation.dialogues": len(rows),
        "evaluation.tokens": sum(map(len, outputs)),
        "evaluation.decoding": decoding.model_dump(),
        "evaluation.at_limit": float(np.mean([len(ids) >= decoding.max_new_tokens for ids in outputs])),
    }
    if scored is not None:
        facts |= {"rouge.tokenizer": parameters.rouge.tokenizer, "rouge.kept": scored.kept}
    metrics = {} if scored is None else {f"{parameters.split}/{name}": v for name, v in scored.metrics.items()}
    if scored is not None and parameters.bertscore is not None:
        metrics[f"{parameters.split}/bertscore"] = _similarity(code, model, rows, texts, parameters, context)
    artifacts = write_predictions(context.artifacts, rows, texts, None if scored is None else scored.corpus)
    if handed_in:
        rows = code.prepared.rows("submission")
        texts = [code.encoder.decode(ids) for ids in written(code.encoded("submission"))]
    artifacts |= write_submission(context.artifacts, rows, texts)
    return Outcome(metrics=metrics, facts=facts, artifacts=artifacts, evaluations=(evaluation,))


def _similarity(
    code: Summarization,
    model: nn.Module,
    rows: Sequence[Dialogue],
    texts: Sequence[str],
    parameters: Evaluate,
    context: Context,
) -> float:
    """Return the mean BERTScore F1 in percent."""
    from ablab.tasks.summarization.similarity import similarity

    assert parameters.bertscore is not None
    values = similarity(
        rows,
        texts,
        parameters.bertscore,
        aggregate=parameters.rouge.references,
        device=next(model.parameters()).device,
        revisions=context.order.revisions,
        study_folder=context.order.study_folder,
    )
    return float(np.mean(values))


def summaries(
    code: Summarization,
    model: nn.Module,
    encoded: Sequence[Encoded],
    decoding: Decoding,
    context: Context,
    *,
    batch: int | None,
    tokens: int | None,
) -> list[list[int]]:
    """Return the ids of a summary for each row."""

    def between(done: int, whole: int) -> None:
        if context.stop_requested():
            raise StopRequested("stopped during generation")
        context.progress(done, whole, unit="dialogues")

    generating: Any = model
    tokenizer = code.vocabulary.tokenizer
    forced = getattr(generating.generation_config, "forced_bos_token_id", None)
    options = {} if forced is None else {"forced_bos_token_id": forced}
    with _precision(model):
        return generate(
            model,
            [{"input_ids": torch.from_numpy(row.source)} for row in encoded],
            decoding=decoding,
            batch_tokens=tokens,
            batch_size=batch,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            between=between,
            **options,
        )


def _precision(model: nn.Module) -> AbstractContextManager[Any]:
    """Return the context of a model that overflows fp16: fp32 where autocast would be fp16."""
    config: Any = model.config
    device = next(model.parameters()).device.type
    family = FAMILIES.get(config.model_type)
    if family is None or family.fp16 or not torch.is_autocast_enabled(device):
        return nullcontext()
    half = torch.get_autocast_dtype(device) == torch.float16
    return torch.autocast(device, enabled=False) if half else nullcontext()


def _truncated(rows: Sequence[Encoded], lengths: Lengths) -> Table:
    """Return how much of dialogues and summaries the limits cut off."""
    found = []
    for name, whole, limit in (
        ("dialogue", np.array([row.whole_source for row in rows]), lengths.source),
        ("summary", np.array([row.whole_target for row in rows if len(row.target)]), lengths.target),
    ):
        if len(whole):
            cut = np.maximum(whole - limit, 0).sum() / whole.sum()
            found.append(
                (name, limit, round(float(whole.mean()), 1), int(whole.max()), _share(whole > limit), float(cut))
            )
    columns = ("text", "limit", "mean", "longest", "texts cut off", "tokens lost")
    return Table(name="truncation", columns=columns, rows=tuple(found), units={"limit": "tokens", "mean": "tokens"})


def _share(flags: np.ndarray) -> float:
    return float(flags.mean())


def cut_curve(rows: Sequence[Encoded], lengths: Lengths) -> Series:
    """Return which share of dialogues each limit would cut off, up to the longest one."""
    whole = np.array([row.whole_source for row in rows])
    limits = np.unique(np.linspace(min(8, int(whole.max())), int(whole.max()), _POINTS).astype(int))
    return Series(
        name=f"dialogues cut off by the limit (here {lengths.source})",
        x=tuple(float(limit) for limit in limits),
        y=tuple(_share(whole > limit) for limit in limits),
        x_label="encoder length in tokens",
        y_label="share cut off",
    )

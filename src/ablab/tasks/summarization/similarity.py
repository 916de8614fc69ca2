"""BERTScore of summaries against their references, with an encoder that the study names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from ablab.data.dialogues import Dialogue
from ablab.metrics.bertscore import bert_score
from ablab.models.hub import load_model, load_tokenizer
from ablab.tasks.summarization.config import BertScore


def similarity(
    rows: Sequence[Dialogue],
    outputs: Sequence[str],
    settings: BertScore,
    *,
    aggregate: Literal["mean", "max"],
    device: torch.device,
    revisions: Mapping[str, str] | None = None,
    study_folder: str | Path | None = None,
) -> list[float]:
    """Return BERTScore F1 in percent of each row, over its references by mean or max.

    Args:
        rows: with references.
        outputs: a summary a row.
        settings: encoder and layer.
        aggregate: over the references of a row.
        device: where the encoder computes.
        revisions: of the study's lock file.
        study_folder: where a relative folder starts.

    Raises:
        ConfigError: the encoder has no such layer, or no tokenizer.
        DataError: there is no such encoder.
    """
    encoder = load_model(settings.encoder, kind="text", revisions=revisions, study_folder=study_folder)
    tokenizer = load_tokenizer(settings.encoder, revisions=revisions, study_folder=study_folder)
    encoder.to(device)  # type: ignore[arg-type]
    pairs = [(output, text) for row, output in zip(rows, outputs, strict=True) for text in row.summaries]
    found = bert_score(
        [output for output, _ in pairs],
        [text for _, text in pairs],
        model=encoder,
        tokenizer=tokenizer,
        layer=settings.layer,
    )
    scores = iter(100 * score["f1"] for score in found)
    each = [[next(scores) for _ in row.summaries] for row in rows]
    return [max(values) if aggregate == "max" else sum(values) / len(values) for values in each]

"""What a backbone learns from before any fine-tuning: turns to mend, and summaries of other topics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ablab.contract.failure import ConfigError
from ablab.contract.seeds import stream_seed
from ablab.data.dialogues import Dialogue, PreparedDialogues, turns
from ablab.tasks.summarization.sections import Pretraining


def pretraining_rows(
    train: Sequence[Dialogue], prepared: PreparedDialogues, section: Pretraining, *, mask: str | None
) -> list[Dialogue]:
    """Return the rows of a pretraining: dialogues of other topics with their summaries, then turns to mend.

    Every reference summary of the other topics is a row of its own. Summaries of the train split are not among them.

    Raises:
        ConfigError: there are no rows, or the tokenizer has no mask to mend by.
    """
    rows: list[Dialogue] = []
    if "pretraining" in prepared.splits:
        others = prepared.rows("pretraining")
        rows = [
            Dialogue(id=row.id, dialogue=row.dialogue, summaries=(text,)) for row in others for text in row.summaries
        ]
    if section.masked:
        if mask is None:
            raise ConfigError("the tokenizer has no mask token: set pretraining.masked to 0, or train a tokenizer")
        rows += list(_to_mend(train, section, mask))
    if not rows:
        raise ConfigError("there is nothing to pretrain on: set data.pretraining_topics, or pretraining.masked")
    return rows


def _to_mend(rows: Sequence[Dialogue], section: Pretraining, mask: str) -> Iterator[Dialogue]:
    """Yield pieces of dialogues with runs of words masked, and the whole piece as what to say; the same every time."""
    for place, row in enumerate(rows):
        draw = np.random.default_rng(stream_seed(0, "augmentation", place))
        lines = turns(row.dialogue)
        start = int(draw.integers(0, max(len(lines) - section.turns, 0) + 1))
        piece = "\n".join(lines[start : start + section.turns])
        yield Dialogue(id=row.id, dialogue=masked(piece, section.masked, mask, draw), summaries=(piece,))


def masked(text: str, share: float, mask: str, draw: np.random.Generator) -> str:
    """Return a text with about a share of its words masked, each run of them by one mask (Lewis et al. 2020)."""
    lines = []
    for line in text.split("\n"):
        words: list[str] = []
        for word in line.split(" "):
            if draw.random() >= share or word.startswith("#Person"):
                words.append(word)
            elif not words or words[-1] != mask:
                words.append(mask)
        lines.append(" ".join(words))
    return "\n".join(lines)

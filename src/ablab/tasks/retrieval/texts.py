"""Texts as tokens of the text tower: its own tokenizer, or one trained with the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ablab.contract.failure import ConfigError
from ablab.data.pairs import Pairs
from ablab.data.tokenizers import load_tokenizer
from ablab.tasks.retrieval.preparation import TOKENIZER


class Texts(Protocol):
    """Tokenizes texts for a tower that takes at most `limit` tokens."""

    limit: int
    vocabulary: int

    def __call__(self, texts: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """Return ids int64 and mask bool, (B, T), T the longest; a missing text is one end token."""
        ...

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens each text would have without a limit."""
        ...


class TrainedTexts:
    """A tokenizer that was trained with the data; every text ends with its end-of-text token."""

    def __init__(self, pairs: Pairs, *, limit: int) -> None:
        self._tokenizer = load_tokenizer(Path(pairs.folder, TOKENIZER), name=pairs.manifest["tokenizer"])
        self.limit, self.vocabulary = limit, self._tokenizer.vocabulary

    def __call__(self, texts: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """Return ids and mask (see `Texts`)."""
        rows = [self._tokenizer.encode(text or "")[: self.limit - 1] for text in texts]
        width = max((len(row) for row in rows), default=0) + 1
        ids = np.full((len(rows), width), self._tokenizer.end_of_text, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=bool)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
            mask[place, : len(row) + 1] = True
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, its end included."""
        return [len(self._tokenizer.encode(text)) + 1 for text in texts]


class TowerTexts:
    """The tokenizer that belongs to a tower of transformers."""

    def __init__(self, tokenizer: Any, *, limit: int) -> None:
        self._tokenizer = tokenizer
        own = getattr(tokenizer, "model_max_length", limit)
        if limit > own:
            raise ConfigError(f"towers.tokens is {limit}, but the text tower takes at most {own} tokens")
        self.limit, self.vocabulary = limit, len(tokenizer)

    def __call__(self, texts: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """Return ids and mask (see `Texts`)."""
        # Some tokenizers (SigLIP's) tell no mask unless asked: padding would count, and a text depend on its batch.
        made = self._tokenizer(
            [text or "" for text in texts],
            padding=True,
            truncation=True,
            max_length=self.limit,
            return_tensors="pt",
            return_attention_mask=True,
        )
        return made["input_ids"], made["attention_mask"].bool()

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, those that are added included."""
        return [len(row) for row in self._tokenizer(list(texts), truncation=False)["input_ids"]]


class OpenClipTexts:
    """The tokenizer of an open_clip model: always as long as the limit, zeros behind the end."""

    def __init__(self, tokenize: Any, *, limit: int) -> None:
        own = getattr(tokenize, "context_length", None) or limit
        if limit > own:
            raise ConfigError(f"towers.tokens is {limit}, but the text tower takes at most {own} tokens")
        self._tokenize, self.limit = tokenize, limit
        self.vocabulary = int(getattr(tokenize, "vocab_size", 0))

    def __call__(self, texts: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """Return ids and mask (see `Texts`)."""
        ids = self._tokenize([text or "" for text in texts], context_length=self.limit)
        return ids, ids != 0

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, start and end included."""
        return [len(self._tokenize.encode(text)) + 2 for text in texts]

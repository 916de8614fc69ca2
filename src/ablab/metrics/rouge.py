"""ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004) between texts, for any language by the tokenizer it is given.

Counted n-grams clipped by the reference, longest common subsequence of the whole text, F1 of precision and recall:
what rouge-score computes with the same tokenizer. All scores lie in 0-1, but for `competition`, which is
100 x (ROUGE-1 + ROUGE-2 + ROUGE-L) / 3 as Korean dialogue summarisation is ranked by. Tokenizers are
`ablab.metrics.text_tokens`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from ablab.contract.failure import DataError
from ablab.contract.seeds import stream_seed
from ablab.metrics.text_tokens import Tokenizer, tokenize_all, tokenizer_for

__all__ = ["CorpusRouge", "Interval", "Scorer", "competition", "corpus_rouge", "rouge", "tokenizer_for"]

ROUGE = ("rouge1", "rouge2", "rougeL")
Aggregate = Literal["mean", "max"]
Tokens = Sequence[str]
#: Cells of a block of the bootstrap's (resamples, rows) index.
_CELLS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over rows, and its percentile bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class CorpusRouge:
    """Scores of a corpus.

    Args:
        rows: scores of each row, in order: rouge1, rouge2, rougeL (0-1) and competition (0-100).
        means: mean over the rows and its interval, by the same names.
    """

    rows: tuple[dict[str, float], ...]
    means: dict[str, Interval]


def rouge(
    hypothesis: str, references: Sequence[str], *, tokenizer: Tokenizer, aggregate: Aggregate = "mean"
) -> dict[str, float]:
    """Return the F1 scores (0-1) of a text against one or several references.

    Args:
        hypothesis: the text; an empty one scores 0.
        references: at least one.
        tokenizer: from a text to its tokens.
        aggregate: over references, each score by itself: mean or max.

    Raises:
        DataError: there is no reference.
    """
    return Scorer([references], tokenizer=tokenizer, aggregate=aggregate).score([hypothesis])[0]


def corpus_rouge(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenizer: Tokenizer,
    aggregate: Aggregate = "mean",
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> CorpusRouge:
    """Return the scores of every row and their means with bootstrap intervals over rows.

    Raises:
        DataError: the numbers of rows differ, or a row has no reference.
    """
    scorer = Scorer(references, tokenizer=tokenizer, aggregate=aggregate)
    return scorer.corpus(hypotheses, seed=seed, resamples=resamples, confidence=confidence)


def competition(scores: Mapping[str, float]) -> float:
    """Return 100 x the mean of the three scores."""
    return 100 * sum(scores[name] for name in ROUGE) / len(ROUGE)


class Scorer:
    """Scores texts against references that are tokenized once, for trying several decodings on one split."""

    def __init__(
        self, references: Sequence[Sequence[str]], *, tokenizer: Tokenizer, aggregate: Aggregate = "mean"
    ) -> None:
        bare = next((row for row, texts in enumerate(references) if isinstance(texts, str) or not texts), None)
        if bare is not None:
            raise DataError(f"row {bare} has no list of reference texts: found {references[bare]!r}", row=bare)
        self._tokenizer = tokenizer
        self._best = aggregate == "max"
        tokens = tokenize_all([text for texts in references for text in texts], tokenizer)
        self._references = [[_Reference(tokens[text]) for text in texts] for texts in references]

    def score(self, hypotheses: Sequence[str]) -> list[dict[str, float]]:
        """Return the three scores (0-1) of each row.

        Raises:
            DataError: there are more or fewer texts than rows of references.
        """
        if len(hypotheses) != len(self._references):
            raise DataError(f"{len(hypotheses)} texts for {len(self._references)} rows of references")
        tokens = tokenize_all(hypotheses, self._tokenizer)
        return [self._row(tokens[text], rows) for text, rows in zip(hypotheses, self._references, strict=True)]

    def corpus(
        self, hypotheses: Sequence[str], *, seed: int = 0, resamples: int = 1000, confidence: float = 0.95
    ) -> CorpusRouge:
        """Return the scores of every row, with the competition's, and their means with intervals over rows."""
        rows = [{**scores, "competition": competition(scores)} for scores in self.score(hypotheses)]
        names = (*ROUGE, "competition")
        table = np.array([[row[name] for name in names] for row in rows]).reshape(len(rows), len(names))
        intervals = bootstrap(table, seed=seed, resamples=resamples, confidence=confidence)
        return CorpusRouge(rows=tuple(rows), means=dict(zip(names, intervals, strict=True)))

    def _row(self, hypothesis: Tokens, references: Sequence[_Reference]) -> dict[str, float]:
        scored = [reference.score(hypothesis) for reference in references]
        columns = zip(*scored, strict=True)
        return {
            name: max(column) if self._best else sum(column) / len(column)
            for name, column in zip(ROUGE, columns, strict=True)
        }


class _Reference:
    """A tokenized reference with what is needed to score many texts against it."""

    def __init__(self, tokens: Tokens) -> None:
        self._length = len(tokens)
        self._ones, self._pairs = Counter(tokens), Counter(pairwise(tokens))
        self._places: dict[str, int] = {}
        for place, token in enumerate(tokens):
            self._places[token] = self._places.get(token, 0) | 1 << place

    def score(self, tokens: Tokens) -> tuple[float, float, float]:
        """Return ROUGE-1, ROUGE-2 and ROUGE-L of a text."""
        ones = Counter(tokens)
        pairs = Counter(pairwise(tokens))
        return (
            f1((ones & self._ones).total(), len(tokens), self._length),
            f1((pairs & self._pairs).total(), len(tokens) - 1, self._length - 1),
            f1(self.common_subsequence(tokens), len(tokens), self._length),
        )

    def common_subsequence(self, tokens: Tokens) -> int:
        """Return the length of the longest common subsequence.

        A row of the dynamic programme is the bits of one integer (Hyyrö 2004): a 0 bit marks a place of the reference
        at which the length grows.
        """
        mask = (1 << self._length) - 1
        row = mask
        for token in tokens:
            matches = row & self._places.get(token, 0)
            row = ((row + matches) | (row - matches)) & mask
        return self._length - row.bit_count()


def f1(common: int, made: int, wanted: int) -> float:
    """Return the harmonic mean of precision common/made and recall common/wanted; 0 where nothing is common."""
    return 2 * common / (made + wanted) if common > 0 else 0.0


def bootstrap(table: np.ndarray, *, seed: int, resamples: int, confidence: float) -> list[Interval]:
    """Return the mean of each column and its percentile bootstrap interval over rows.

    Args:
        table: (rows, columns); without rows every value is 0.
        seed: of the stream `bootstrap`.
        resamples: drawn with replacement, all columns share them; 0 gives intervals without width.
        confidence: of the interval, as a share.
    """
    rows, columns = table.shape
    if not rows:
        return [Interval(value=0.0, low=0.0, high=0.0)] * columns
    if not resamples:
        return [Interval(value=float(mean), low=float(mean), high=float(mean)) for mean in table.mean(axis=0)]
    drawn = np.random.default_rng(stream_seed(seed, "bootstrap"))
    means = np.empty((resamples, columns))
    block = max(_CELLS // rows, 1)
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        chosen = drawn.integers(0, rows, size=(count, rows))
        for column in range(columns):
            means[start : start + count, column] = table[:, column][chosen].mean(axis=1)
    edges = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    values = table.mean(axis=0)
    return [
        Interval(value=float(value), low=float(low), high=float(high))
        for value, low, high in zip(values, *edges, strict=True)
    ]

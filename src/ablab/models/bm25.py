"""BM25 over texts: the baseline that sees no picture and learns nothing.

Scores are bm25s's (its "lucene" variant, k1 1.5, b 0.75). Words are runs of letters and digits in lower case; Korean,
whose words carry endings, is cut into pairs of syllables, the usual remedy where no morphology is at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ablab.contract.failure import ConfigError

#: What stands where nothing more was found; `ablab.metrics.ranking` knows it too.
NOTHING = -1
_WORD = re.compile(r"[가-힣]+|[^\W가-힣]+")


def terms(text: str) -> list[str]:
    """Return the terms of a text: words in lower case; of Hangul, pairs of neighbouring syllables."""
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        if "가" <= word[0] <= "힣" and len(word) > 2:
            found.extend(word[i : i + 2] for i in range(len(word) - 1))
        else:
            found.append(word)
    return found


class BM25:
    """An index of texts.

    Args:
        passages: the texts; at least one.
        k1, b: saturation of term counts, and normalisation by length.

    Raises:
        ConfigError: there are no texts, or bm25s is not installed.
    """

    def __init__(self, passages: Iterable[str], *, k1: float = 1.5, b: float = 0.75) -> None:
        try:
            import bm25s
        except ModuleNotFoundError as error:
            raise ConfigError("BM25 needs the package bm25s: pip install 'ablab[retrieval]'") from error
        corpus = [terms(text) for text in passages]
        if not corpus:
            raise ConfigError("BM25 needs at least one passage; the pool is empty")
        self.size = len(corpus)
        self._known: set[str] = set().union(*corpus)
        self._index: Any = None
        if self._known:
            self._index = bm25s.BM25(k1=k1, b=b, method="lucene")
            self._index.index(corpus, show_progress=False)

    def scores(self, query: str) -> npt.NDArray[np.float32]:
        """Return the score of every passage, (N,); 0 for those that share no term with the query."""
        # Every occurrence of a term in the query counts, as in Lucene.
        wanted = [term for term in terms(query) if term in self._known]
        if not wanted:
            return np.zeros(self.size, dtype=np.float32)
        return np.asarray(self._index.get_scores(wanted), dtype=np.float32)

    def search(self, queries: Iterable[str], k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the first k passages of each query: positions and scores, both (Q, k).

        Equal scores rank by position. Passages that share no term are not found: their places hold `NOTHING`, 0.
        """
        rankings, values = [], []
        for query in queries:
            scores = self.scores(query)
            best = top(scores, k)
            best = best[scores[best] > 0]
            rankings.append(np.pad(best, (0, k - len(best)), constant_values=NOTHING))
            values.append(np.pad(scores[best], (0, k - len(best))))
        if not rankings:
            return np.zeros((0, k), dtype=np.int64), np.zeros((0, k), dtype=np.float32)
        return np.stack(rankings), np.stack(values)


def bm25_run(
    passages: Sequence[str], queries: Sequence[str], k: int, *, k1: float = 1.5, b: float = 0.75
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the first k of the passages for each query: positions int64 and scores fp32, both (Q, k).

    `k1` and `b` are those of `BM25`.
    """
    return BM25(passages, k1=k1, b=b).search(queries, k)


def top(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """Return the positions of the k largest scores, falling; equal ones by position, also where the list is cut."""
    k = min(k, len(scores))
    if k == 0:
        return np.zeros(0, dtype=np.int64)
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > least)
    equal = np.flatnonzero(scores == least)[: k - len(above)]
    chosen = np.concatenate([above, equal])
    ordered: npt.NDArray[np.int64] = chosen[np.lexsort((chosen, -scores[chosen]))]
    return ordered

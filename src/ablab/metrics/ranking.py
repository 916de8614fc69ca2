"""How well passages are ranked for queries, over the whole pool that is searched.

A ranking is the list of pool positions by falling score; among equal scores the passage that stands earlier in the
pool comes first. Relevance is yes or no. Every score is a mean over all queries: one without a positive in the pool
counts as zero, and `unanswerable` tells how many there are.

"Recall@K" of M2KR is what is called hit rate here (any positive among the first K); pseudo-recall asks whether an
answer occurs in any of the K texts, which short and common answers inflate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
#: A place that holds no passage, where a pool is smaller than the list or a search found fewer.
NOTHING = -1


def relevance(ranking: npt.NDArray[np.integer], positives: Sequence[Collection[int]]) -> Booleans:
    """Return which places of a ranking hold a positive, as booleans of shape (Q, K).

    Args:
        ranking: pool positions by falling score, int of shape (Q, K); `NOTHING` where a list ends early.
        positives: pool positions of each query's positives, Q of them; may be empty.

    Raises:
        ValueError: the shapes disagree, or a passage stands twice in a list.
    """
    if ranking.ndim != 2 or len(ranking) != len(positives):
        raise ValueError(f"ranking of shape {ranking.shape} for {len(positives)} queries; expected (queries, K)")
    ordered = np.sort(ranking, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NOTHING)).any():
        raise ValueError("a passage stands twice in one ranking")
    found = np.zeros(ranking.shape, dtype=np.bool_)
    for row, (places, wanted) in enumerate(zip(ranking, positives, strict=True)):
        if wanted:
            found[row] = np.isin(places, np.fromiter(wanted, dtype=np.int64)) & (places != NOTHING)
    return found


def hit(relevant: Booleans, k: int) -> Floats:
    """Return for each query whether a positive is among the first k (Success@k; M2KR's "Recall@k")."""
    found: Floats = np.asarray(relevant[:, :k].any(axis=1), dtype=np.float64)
    return found


def recall(relevant: Booleans, counts: npt.NDArray[np.integer], k: int) -> Floats:
    """Return the share of each query's positives that is among the first k; `counts` are its positives in the pool."""
    found: Floats = np.asarray(relevant[:, :k].sum(axis=1) / np.maximum(counts, 1), dtype=np.float64)
    return found


def reciprocal_rank(relevant: Booleans, k: int | None = None) -> Floats:
    """Return 1 / rank of each query's first positive, 0 where none is among the first k (all K where it is None)."""
    seen = relevant[:, :k]
    if not seen.shape[1]:
        return np.zeros(len(seen))
    first = seen.argmax(axis=1)
    ranks: Floats = np.where(seen.any(axis=1), 1.0 / (first + 1.0), 0.0)
    return ranks


def ndcg(relevant: Booleans, counts: npt.NDArray[np.integer], k: int) -> Floats:
    """Return the normalised discounted cumulative gain at k with gains 0 and 1 (Järvelin and Kekäläinen 2002).

    The discount of rank r is 1 / log2(r + 1); the ideal has min(positives in the pool, k) of them in front.
    """
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    gained = (relevant[:, :k] * discount[: relevant.shape[1]]).sum(axis=1)
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(counts, k)]
    shares: Floats = np.divide(gained, ideal, out=np.zeros(len(relevant)), where=ideal > 0)
    return shares


def pseudo_recall(
    ranking: npt.NDArray[np.integer], texts: Sequence[str], answers: Sequence[Collection[str]], k: int
) -> Floats:
    """Return for each query whether any answer, stripped and in lower case, is a substring of any of the first k texts.

    Empty answers count as none. This is M2KR's PR@k, its texts compared in lower case too.

    Args:
        ranking: pool positions, (Q, K).
        texts: the pool.
        answers: answers of each query; may be empty.
        k: how many texts are looked at.
    """
    lowered: dict[int, str] = {}
    found = np.zeros(len(ranking))
    for row, (places, wanted) in enumerate(zip(ranking[:, :k].tolist(), answers, strict=True)):
        needles = [needle for needle in (answer.strip().lower() for answer in wanted) if needle]
        for place in places:
            if place == NOTHING or not needles:
                continue
            if place not in lowered:
                lowered[place] = texts[place].lower()
            if any(needle in lowered[place] for needle in needles):
                found[row] = 1.0
                break
    return found


def query_scores(
    ranking: npt.NDArray[np.integer],
    positives: Sequence[Collection[int]],
    *,
    cutoffs: Sequence[int] = (1, 5, 10),
    depth: int = 10,
    texts: Sequence[str] | None = None,
    answers: Sequence[Collection[str]] | None = None,
) -> dict[str, Floats]:
    """Return the scores of every query by name: hit@k, pseudo_recall@k where texts and answers are given, mrr, ndcg.

    Args:
        ranking: pool positions by falling score, (Q, K), K at least the largest cutoff unless the pool is smaller.
        positives: pool positions of each query's positives.
        cutoffs: k of hit rate and pseudo-recall.
        depth: k of mrr and ndcg.
        texts: the pool's texts.
        answers: answers of each query.

    Raises:
        ValueError: shapes disagree, or the lists are shorter than a cutoff needs although the pool is not.
    """
    relevant = relevance(ranking, positives)
    _deep_enough(ranking, max([*cutoffs, depth]))
    counts = np.array([len(set(wanted)) for wanted in positives], dtype=np.int64)
    values = {f"hit@{k}": hit(relevant, k) for k in cutoffs}
    values[f"mrr@{depth}"] = reciprocal_rank(relevant, depth)
    values[f"ndcg@{depth}"] = ndcg(relevant, counts, depth)
    if texts is not None and answers is not None and any(answers):
        values |= {f"pseudo_recall@{k}": pseudo_recall(ranking, texts, answers, k) for k in cutoffs}
    return values


def means(scores: Mapping[str, Floats]) -> dict[str, float]:
    """Return the mean over the queries of each score; nothing where there are no queries."""
    return {name: float(values.mean()) for name, values in scores.items() if len(values)}


def unanswerable(positives: Sequence[Collection[int]]) -> int:
    """Return how many queries have no positive in the pool: no ranking can answer them."""
    return sum(not wanted for wanted in positives)


def _deep_enough(ranking: npt.NDArray[np.integer], needed: int) -> None:
    """Refuse lists that were cut before the last cutoff: what was cut could have been a hit."""
    if ranking.shape[1] < needed and len(ranking) and not (ranking == NOTHING).any():
        whole = np.sort(ranking, axis=1)
        if not (whole == np.arange(ranking.shape[1])).all():
            raise ValueError(f"lists of {ranking.shape[1]} passages cannot be scored at {needed}; search deeper")

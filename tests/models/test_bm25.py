"""BM25 against its formula, and what it does with ties, Korean and words nobody uses."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablab.contract.failure import AblabError
from ablab.models.bm25 import BM25, NOTHING, bm25_run, terms, top

TEXTS = [
    "a red fox",
    "a blue whale and a red whale",
    "the fox, the fox and the wolf",
    "",
    "여우 얼굴",
    "빨간 여우를 보았다",
]


def by_hand(texts: list[str], query: str, k1: float = 1.5, b: float = 0.75) -> list[float]:
    split = [terms(text) for text in texts]
    mean = sum(map(len, split)) / len(split)
    found = []
    for words in split:
        counts, score = Counter(words), 0.0
        for term in terms(query):
            having = sum(term in other for other in split)
            idf = math.log(1 + (len(split) - having + 0.5) / (having + 0.5))
            score += idf * counts[term] / (counts[term] + k1 * (1 - b + b * len(words) / mean))
        found.append(score)
    return found


@pytest.mark.parametrize("query", ["fox", "red whale", "the fox and the fox", "여우", "nothing of this", ""])
def test_scores_follow_the_formula(query):
    assert BM25(TEXTS).scores(query).tolist() == pytest.approx(by_hand(TEXTS, query), rel=1e-5)


def test_korean_is_found_through_its_endings():
    assert terms("여우를 보았다, Fox 12") == ["여우", "우를", "보았", "았다", "fox", "12"]
    ids, scores = bm25_run(TEXTS, ["여우는 무엇인가요?"], 3)
    assert set(ids[0].tolist()) == {4, 5, NOTHING} and scores[0, 2] == 0


def test_what_shares_no_word_is_not_found():
    ids, scores = bm25_run(TEXTS, ["zebra", "fox"], 4)
    assert ids[0].tolist() == [NOTHING] * 4 and not scores[0].any()
    assert set(ids[1].tolist()) == {0, 2, NOTHING}
    assert bm25_run(["", " "], ["fox"], 2)[0].tolist() == [[NOTHING, NOTHING]]
    assert bm25_run(TEXTS, [], 2)[0].shape == (0, 2)


def test_equal_texts_rank_by_position_also_at_the_cut():
    ids, _ = bm25_run(["b", "a x", "a x", "a x", "a x"], ["a"], 3)
    assert ids[0].tolist() == [1, 2, 3]


@given(st.lists(st.integers(0, 4), max_size=30), st.integers(0, 35))
@settings(max_examples=80, deadline=None)
def test_top_is_a_stable_sort(values, k):
    scores = np.array(values, dtype=np.float32)
    assert top(scores, k).tolist() == np.argsort(-scores, kind="stable")[:k].tolist()


def test_an_empty_pool_is_refused():
    with pytest.raises(AblabError, match="at least one passage"):
        BM25([])

"""Ranking scores against ir-measures, hand counts and a plain loop."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import RR, R, Success, nDCG

from ablab.metrics.ranking import (
    NOTHING,
    hit,
    means,
    ndcg,
    pseudo_recall,
    query_scores,
    recall,
    reciprocal_rank,
    relevance,
    unanswerable,
)


@st.composite
def rankings(draw):
    pool = draw(st.integers(10, 30))
    queries = draw(st.integers(1, 6))
    seed = draw(st.integers(0, 2**16))
    random = np.random.default_rng(seed)
    ranking = np.stack([random.permutation(pool) for _ in range(queries)])
    positives = [set(random.choice(pool, random.integers(1, 8), replace=False).tolist()) for _ in range(queries)]
    return ranking, positives


@given(rankings())
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_ir_measures(case):
    ranking, positives = case
    qrels = [ir_measures.Qrel(str(q), str(p), 1) for q, wanted in enumerate(positives) for p in wanted]
    run = [
        ir_measures.ScoredDoc(str(q), str(p), float(-place))
        for q, places in enumerate(ranking.tolist())
        for place, p in enumerate(places)
    ]
    measures = [Success @ 1, Success @ 5, RR @ 10, nDCG @ 10, R @ 5]
    expected = ir_measures.calc_aggregate(measures, qrels, run)
    ours = means(query_scores(ranking, positives, cutoffs=(1, 5), depth=10))
    counts = np.array([len(wanted) for wanted in positives])
    ours["recall"] = float(recall(relevance(ranking, positives), counts, 5).mean())
    names = dict(zip(("hit@1", "hit@5", "mrr@10", "ndcg@10", "recall"), measures, strict=True))
    for name, measure in names.items():
        assert ours[name] == pytest.approx(expected[measure], abs=1e-12), name


def test_hand_counted_scores():
    ranking = np.array([[3, 1, 2, 0], [0, 1, 2, 3], [2, 3, 0, 1]])
    positives = [{2, 9}, {0}, set()]
    relevant = relevance(ranking, positives)
    assert relevant.tolist() == [[False, False, True, False], [True, False, False, False], [False] * 4]
    assert hit(relevant, 2).tolist() == [0, 1, 0]
    assert reciprocal_rank(relevant).tolist() == [1 / 3, 1, 0]
    ideal = 1 + 1 / np.log2(3)
    assert ndcg(relevant, np.array([2, 1, 0]), 4).tolist() == pytest.approx([0.5 / ideal, 1, 0])
    assert unanswerable(positives) == 1


def test_queries_that_cannot_be_answered_count_as_zero():
    scores = query_scores(np.array([[0, 1], [0, 1]]), [{0}, set()], cutoffs=(1,), depth=2)
    assert means(scores) == {"hit@1": 0.5, "mrr@2": 0.5, "ndcg@2": 0.5}


def test_an_early_end_of_a_list_is_no_hit():
    ranking = np.array([[1, NOTHING, NOTHING]])
    assert relevance(ranking, [{0}]).tolist() == [[False] * 3]
    assert means(query_scores(ranking, [{1}], cutoffs=(3,), depth=5))["hit@3"] == 1


def test_pseudo_recall_looks_for_any_answer_in_any_text():
    texts = ["The Red Fox", "a blue whale", "여우 얼굴"]
    ranking = np.array([[1, 0, 2], [1, 0, 2], [2, 1, 0], [0, 1, 2]])
    answers = [("fox ", "wolf"), ("cat",), ("여우",), ("", "  ")]
    assert pseudo_recall(ranking, texts, answers, 1).tolist() == [0, 0, 1, 0]
    assert pseudo_recall(ranking, texts, answers, 2).tolist() == [1, 0, 1, 0]
    scores = query_scores(ranking, [{0}] * 4, cutoffs=(1, 2), depth=3, texts=texts, answers=answers)
    assert scores["pseudo_recall@2"].tolist() == [1, 0, 1, 0]
    assert "pseudo_recall@1" not in query_scores(ranking, [{0}] * 4, cutoffs=(1,), depth=3, texts=texts)


@pytest.mark.parametrize(
    ("ranking", "positives", "message"),
    [
        (np.array([[0, 0]]), [{0}], "twice"),
        (np.array([[0, 1]]), [{0}, {1}], "for 2 queries"),
        (np.array([[7, 3]]), [{0}], "cannot be scored at 10"),
    ],
)
def test_mistakes_are_refused(ranking, positives, message):
    with pytest.raises(ValueError, match=message):
        query_scores(ranking, positives)


def test_a_pool_smaller_than_the_cutoff_is_scored_whole():
    assert means(query_scores(np.array([[1, 0]]), [{0}], cutoffs=(1, 5), depth=10))["hit@5"] == 1

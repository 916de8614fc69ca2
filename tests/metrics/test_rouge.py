"""ROUGE against rouge-score with the same tokenizer; references, intervals, and what tokenizers keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from ablab.contract.failure import ConfigError, DataError
from ablab.metrics.rouge import Scorer, bootstrap, competition, corpus_rouge, rouge
from ablab.metrics.text_tokens import KoreanMorphemes, coverage, tokenizer_for, words

KOREAN = (
    "#Person1#은 #Person2#에게 #PhoneNumber#로 전화해 달라고 부탁했습니다.",
    "#Person2#가 #Person1#의 전화를 받지 못해서 나중에 다시 걸기로 했다.",
)
ENGLISH = ("#Person1# asks #Person2# to call #PhoneNumber#.", "Jimmy didn't answer; he'll call back at 3:30.")


@cache
def korean() -> KoreanMorphemes:
    return KoreanMorphemes()


class Split:
    """rouge-score's form of a tokenizer."""

    def __init__(self, tokenizer: Callable[[str], list[str]]) -> None:
        self.tokenize = tokenizer


def reference_scores(hypothesis: str, target: str, tokenizer: Callable[[str], list[str]]) -> list[float]:
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Split(tokenizer))
    return [score.fmeasure for score in scorer.score(target, hypothesis).values()]


#: Few distinct words, so that n-grams repeat and subsequences tie; Korean, English and tags mixed.
texts = st.lists(st.sampled_from(["가", "나", "다", "a", "b", "#Person1#", "전화", "."]), max_size=70).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(texts, texts)
def test_scores_equal_rouge_score_with_the_same_tokenizer(hypothesis: str, target: str) -> None:
    for name in ("words", "characters", "ascii"):
        tokenizer = tokenizer_for(name)
        ours = rouge(hypothesis, [target], tokenizer=tokenizer)
        assert list(ours.values()) == pytest.approx(reference_scores(hypothesis, target, tokenizer), abs=1e-12)


@pytest.mark.parametrize("hypothesis", [*KOREAN, *ENGLISH, "", "ㅋㅋㅋ 안녕!"])
@pytest.mark.parametrize("target", [*KOREAN, *ENGLISH])
def test_korean_morphemes_equal_rouge_score(hypothesis: str, target: str) -> None:
    ours = rouge(hypothesis, [target], tokenizer=korean())
    assert list(ours) == ["rouge1", "rouge2", "rougeL"]
    assert list(ours.values()) == pytest.approx(reference_scores(hypothesis, target, korean()), abs=1e-12)


def test_known_values() -> None:
    found = rouge("the cat sat on the mat", ["the cat was on the mat"], tokenizer=words)
    assert found["rouge1"] == pytest.approx(5 / 6)
    assert found["rouge2"] == pytest.approx(3 / 5)
    assert found["rougeL"] == pytest.approx(5 / 6)
    # Counted, not unique: 2 x 1 / (5 + 5).
    assert rouge("a a a a b", ["a b c d e"], tokenizer=words)["rouge1"] == pytest.approx(0.4)
    assert competition(found) == pytest.approx(100 * (5 / 6 + 3 / 5 + 5 / 6) / 3)


def test_an_empty_hypothesis_scores_nothing() -> None:
    for empty in ("", "   ", "\n"):
        for reference in ("", "some words"):
            assert set(rouge(empty, [reference], tokenizer=words).values()) == {0.0}
    assert set(rouge("words", [""], tokenizer=words).values()) == {0.0}


def test_several_references_by_mean_or_max_of_each_score() -> None:
    references = ["a b c", "c b a d", "x"]
    each = [rouge("a b d", [reference], tokenizer=words) for reference in references]
    for aggregate, of in (("mean", np.mean), ("max", max)):
        found = rouge("a b d", references, tokenizer=words, aggregate=aggregate)  # type: ignore[arg-type]
        assert found == pytest.approx({name: of([scores[name] for scores in each]) for name in found})


def test_a_corpus_holds_rows_and_intervals_around_their_means() -> None:
    hypotheses = [f"a b {'c ' * (i % 5)}" for i in range(60)]
    references = [["a b c c", "b a"] for _ in hypotheses]
    found = corpus_rouge(hypotheses, references, tokenizer=words, aggregate="max", seed=3)
    assert [row["rouge1"] for row in found.rows] == [
        rouge(h, r, tokenizer=words, aggregate="max")["rouge1"] for h, r in zip(hypotheses, references, strict=True)
    ]
    for name, mean in found.means.items():
        column = [row[name] for row in found.rows]
        assert mean.value == pytest.approx(np.mean(column))
        assert mean.low < mean.value < mean.high
        # Half of a 95 % interval is 1.96 standard errors where the mean is about normal.
        assert (mean.high - mean.low) / 2 == pytest.approx(1.96 * np.std(column) / math.sqrt(60), rel=0.15)
    assert found.means["competition"].value == pytest.approx(
        competition({n: found.means[n].value for n in ("rouge1", "rouge2", "rougeL")})
    )
    again = corpus_rouge(hypotheses, references, tokenizer=words, aggregate="max", seed=3)
    assert again == found


def test_intervals_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(0).random((50, 2))
    whole = bootstrap(table, seed=1, resamples=200, confidence=0.9)
    monkeypatch.setattr("ablab.metrics.rouge._CELLS", 350)
    assert bootstrap(table, seed=1, resamples=200, confidence=0.9) == whole
    bare = bootstrap(table, seed=1, resamples=0, confidence=0.9)
    assert [(each.low, each.value, each.high) for each in bare] == [(each.value,) * 3 for each in whole]
    assert [interval.value for interval in bootstrap(np.zeros((0, 2)), seed=0, resamples=9, confidence=0.9)] == [0, 0]


def test_a_scorer_serves_many_decodings_and_tokenizes_references_once() -> None:
    seen: list[str] = []

    def counting(text: str) -> list[str]:
        seen.append(text)
        return text.split()

    scorer = Scorer([["a b"], ["a b", "c"]], tokenizer=counting)
    first, second = scorer.score(["a", "c"]), scorer.score(["a b", "a"])
    assert seen == ["a b", "c", "a", "c", "a b", "a"]
    assert first[0]["rouge1"] == pytest.approx(2 / 3)
    assert second[0] == {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0}


@pytest.mark.parametrize("references", [[["a"], []], [["a"], "text"]])
def test_a_row_without_references_is_named(references: Sequence[Sequence[str]]) -> None:
    with pytest.raises(DataError, match="row 1 has no list of reference texts"):
        Scorer(references, tokenizer=words)
    with pytest.raises(DataError, match="1 texts for 2 rows"):
        Scorer([["a"], ["b"]], tokenizer=words).score(["a"])


def test_tags_stay_whole_beside_their_particles() -> None:
    tokens = korean()(KOREAN[0])
    assert tokens[:5] == ["#Person1#", "은", "#Person2#", "에게", "#PhoneNumber#"]
    assert korean().batch(KOREAN) == [korean()(text) for text in KOREAN]
    assert words("#Person1#: Call #PhoneNumber#!") == ["#Person1#", "call", "#PhoneNumber#"]
    assert tokenizer_for("characters")("#SSN#은 Go") == ["#SSN#", "은", "g", "o"]


def test_what_is_remembered_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = KoreanMorphemes()
    fresh._kiwi = korean()._kiwi
    expected = [korean()(text) for text in (*KOREAN, *ENGLISH)]
    fresh.batch(KOREAN)[0].append("changed by the caller")
    monkeypatch.setattr("ablab.metrics.text_tokens._REMEMBERED", 3)
    assert fresh.batch([*KOREAN, *ENGLISH, *KOREAN]) == [*expected, *expected[:2]]


def test_the_usual_tokenizer_leaves_only_the_tags_of_korean() -> None:
    ascii_words = tokenizer_for("ascii")
    assert rouge(KOREAN[0], ["#Person1# #Person2# #PhoneNumber# 엉뚱한 말"], tokenizer=ascii_words)["rougeL"] == 1.0
    assert coverage(KOREAN, ascii_words).dropped == 1.0
    for tokenizer in (korean(), words, tokenizer_for("characters")):
        assert coverage([*KOREAN, *ENGLISH, "갔다 왔어. 컸던 게 됐다고 했습니다"], tokenizer).dropped < 0.1
    assert coverage(["...", ""], words).dropped == 0.0
    mixed = coverage(["abcd", "가나abcd"], ascii_words)
    assert mixed.dropped == pytest.approx(4 / 12)
    assert mixed.example == ("가나abcd", ["abcd"])


def test_an_unknown_tokenizer_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no tokenizer 'mecab'; there are korean, words, characters, ascii"):
        tokenizer_for("mecab")

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablab.metrics.perplexity import Window, bits_per_byte, perplexity, scores, windows


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(1, 60), st.data())
def test_every_target_is_scored_once_with_the_context_promised(length: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window))
    found = list(windows(length, window=window, stride=stride))
    scored = [target for w in found for target in range(w.scored, w.stop)]
    assert scored == list(range(length))
    for w in found:
        assert w.start <= w.scored < w.stop <= w.start + window
    for w in found[1:]:
        assert w.scored - w.start >= window - stride


def test_a_stride_of_the_window_cuts_without_overlap() -> None:
    assert list(windows(10, window=4, stride=4)) == [
        Window(start=0, scored=0, stop=4),
        Window(start=4, scored=4, stop=8),
        Window(start=8, scored=8, stop=10),
    ]


@pytest.mark.parametrize("stride", [0, 5])
def test_a_stride_that_would_leave_targets_out_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match="stride"):
        list(windows(10, window=4, stride=stride))


def test_a_uniform_model_has_the_closed_forms() -> None:
    vocabulary, tokens, size, words = 257, 1000, 4000, 800
    values = scores(nats=tokens * math.log(vocabulary), tokens=tokens, size=size, words=words)
    assert values["loss"] == pytest.approx(math.log(vocabulary))
    assert values["perplexity"] == pytest.approx(vocabulary)
    assert values["bits_per_byte"] == pytest.approx(math.log2(vocabulary) * tokens / size)
    assert values["word_perplexity"] == pytest.approx(vocabulary ** (tokens / words))


@settings(deadline=None)
@given(st.floats(1.0, 1e6), st.integers(1, 10**6), st.integers(1, 10**6))
def test_bits_per_byte_and_word_perplexity_tell_the_same(nats: float, size: int, words: int) -> None:
    bits = bits_per_byte(nats, size)
    if nats / words < 600:
        assert math.log2(perplexity(nats, words)) == pytest.approx(bits * size / words)


def test_counts_that_are_unknown_or_zero_give_no_score() -> None:
    assert set(scores(nats=3.0, tokens=2, size=None, words=0)) == {"loss", "perplexity"}


def test_a_diverged_model_overflows_to_infinity() -> None:
    assert perplexity(1e6, 1) == math.inf

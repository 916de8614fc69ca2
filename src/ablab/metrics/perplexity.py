"""Perplexity and its relatives over a whole split, and the windows a split is read in.

All are ratios of sums over the split, never means of batch means. The perplexity of tokens compares only under one
tokenizer; bits per byte and word perplexity compare across tokenizers, since bytes and words belong to the text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Targets [scored, stop) of a sequence, predicted from inputs that begin at `start`; start <= scored < stop."""

    start: int
    scored: int
    stop: int


def windows(length: int, *, window: int, stride: int) -> Iterator[Window]:
    """Yield windows over `length` targets such that every target is scored exactly once.

    The first window scores all of its targets, later ones only those past the end of the one before, so that each
    target but the first `window` sees at least window - stride tokens. stride = window gives windows without overlap.

    Raises:
        ValueError: unless 1 <= stride <= window.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"stride {stride} must lie between 1 and the window, {window}")
    scored = 0
    for start in range(0, length, stride):
        stop = min(start + window, length)
        yield Window(start=start, scored=scored, stop=stop)
        if stop == length:
            return
        scored = stop


def perplexity(nats: float, tokens: float) -> float:
    """Return exp(nats / tokens); infinite where that exceeds the range of a float."""
    try:
        return math.exp(nats / tokens)
    except OverflowError:
        return math.inf


def bits_per_byte(nats: float, size: float) -> float:
    """Return the bits a byte of text costs: nats / (ln 2 x bytes)."""
    return nats / (math.log(2) * size)


def scores(*, nats: float, tokens: float, size: float | None = None, words: float | None = None) -> dict[str, float]:
    """Return loss, perplexity and, where their counts are known and not zero, bits_per_byte and word_perplexity.

    Args:
        nats: total negative log-likelihood of the targets.
        tokens: targets.
        size: UTF-8 bytes of the targets; special tokens have none.
        words: whitespace-separated words of the original text.
    """
    values = {"loss": nats / tokens, "perplexity": perplexity(nats, tokens)}
    if size:
        values["bits_per_byte"] = bits_per_byte(nats, size)
    if words:
        values["word_perplexity"] = perplexity(nats, words)
    return values

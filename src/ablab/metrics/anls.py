"""ANLS: average normalised Levenshtein similarity (Biten et al. 2019), the measure of DocVQA and InfographicVQA."""

from __future__ import annotations

from collections.abc import Iterable

from ablab.metrics.edits import levenshtein

#: Similarity below which an answer counts 0; one of exactly .5 counts, as in the official script.
THRESHOLD = 0.5


def anls(prediction: str, answers: Iterable[str], *, threshold: float = THRESHOLD) -> float:
    """Return the similarity, 0 to 1, to the most similar accepted answer; 0 where it is below the threshold.

    The similarity is 1 - distance / length of the longer one; case and runs of space do not count.
    """
    best = max((_similarity(_clean(prediction), _clean(answer)) for answer in answers), default=0.0)
    return best if best >= threshold else 0.0


def _similarity(one: str, other: str) -> float:
    longest = max(len(one), len(other))
    return 1.0 if longest == 0 else 1 - levenshtein(one, other) / longest


def _clean(text: str) -> str:
    return " ".join(text.lower().split())

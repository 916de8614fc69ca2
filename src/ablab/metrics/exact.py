"""Exact match, with case, punctuation and outer space ignored (GQA)."""

from __future__ import annotations

import string

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def plain(text: str) -> str:
    """Return a text in lower case without ASCII punctuation; runs of space are one."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


def exact_match(prediction: str, target: str) -> bool:
    """Tell whether two texts are equal but for case, punctuation and space."""
    return plain(prediction) == plain(target)

"""Edit distance between short texts (Levenshtein 1966)."""

from __future__ import annotations


def levenshtein(one: str, other: str) -> int:
    """Return how many insertions, deletions and substitutions of characters make one text the other."""
    if len(one) < len(other):
        one, other = other, one
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            cost = diagonal + (left != right)
            diagonal = row[j]
            row[j] = min(cost, row[j] + 1, row[j - 1] + 1)
    return row[-1]

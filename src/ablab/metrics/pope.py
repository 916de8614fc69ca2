"""POPE (Li et al. 2023): yes-or-no questions about objects, and what a model's yes-saying does to its scores."""

from __future__ import annotations

from collections.abc import Iterable


def says_yes(text: str) -> bool | None:
    """Return whether an answer means yes, by the rule of the official script.

    Of the first sentence, without commas: "No", "no" or "not" among its words means no, anything else yes. An empty
    answer means neither (None) here, where the script would take it for yes.
    """
    words = text.split(".")[0].replace(",", " ").split()
    if not words and not text.strip(" .\n\t"):
        return None
    return not {"No", "no", "not"}.intersection(words)


def pope_scores(pairs: Iterable[tuple[bool | None, bool]]) -> dict[str, float]:
    """Return accuracy, precision, recall, f1 and yes_ratio, each 0 to 1; what is undefined is left out.

    Args:
        pairs: whether the model said yes (None: neither, which is wrong) and whether yes is right.

    yes_ratio is the share of answers that say yes; of the right ones it is one half.
    """
    rows = list(pairs)
    if not rows:
        return {}
    hits = sum(said is True and right for said, right in rows)
    false_alarms = sum(said is True and not right for said, right in rows)
    positives = sum(right for _, right in rows)
    said_yes = hits + false_alarms
    scores = {"accuracy": sum(said is right for said, right in rows) / len(rows), "yes_ratio": said_yes / len(rows)}
    if said_yes:
        scores["precision"] = hits / said_yes
    if positives:
        scores["recall"] = hits / positives
    if said_yes + positives:
        scores["f1"] = 2 * hits / (said_yes + positives)
    return scores

"""Containment: an answer is right if it holds an accepted one (OCRBench, Liu et al. 2023). OCRBench counts its 1000
questions; it is no F1."""

from __future__ import annotations

from collections.abc import Iterable


def contains(prediction: str, answers: Iterable[str], *, spaces: bool = True, case: bool = False) -> bool:
    """Tell whether a prediction contains one of the answers; an empty answer is contained in nothing.

    Args:
        prediction: what the model said.
        answers: accepted answers.
        spaces: whether spaces count; OCRBench leaves them out for formulas (HME100k).
        case: whether case counts; it does for formulas.
    """
    text = _clean(prediction, spaces=spaces, case=case)
    cleaned = (_clean(answer, spaces=spaces, case=case) for answer in answers)
    return any(answer in text for answer in cleaned if answer)


def _clean(text: str, *, spaces: bool, case: bool) -> str:
    text = text.strip().replace("\n", " ")
    text = text if spaces else text.replace(" ", "")
    return text if case else text.lower()

"""Answers to mathematical questions about images: what an answer says, and whether it is right (MathVista, MathVerse).

MathVista (Lu et al. 2024) lets a language model extract the answer and then compares by type and precision. Without
one, the extraction here is by rule (`extract`); the normalisation and the comparison are the published ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from ablab.metrics.choice import LETTERS, option_letter
from ablab.metrics.edits import levenshtein

Kind = Literal["text", "integer", "float", "list"]

_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-+]?\.\d+"
_FOUND_NUMBER = re.compile(rf"(?<![\w.])(?:{_NUMBER})(?![\w])")
_FOUND_LIST = re.compile(r"\[[^\[\]]*\]")
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
_STATED = re.compile(r"(?:answer|정답|답)\s*(?:is|are|은|는)?\s*[:：]?\s*(.+)", re.IGNORECASE)
_BRACKETED = re.compile(r"\(([a-zA-Z])\)")


def extract(text: str, *, choices: Sequence[str] = (), kind: Kind = "text") -> str:
    """Return the answer within a response, by rule; "" where none is found.

    A boxed or stated answer ("the answer is ...", "정답: ...") counts before anything else, the last one of several;
    of numbers and lists the last of what is left.
    """
    text = text.strip()
    if choices and text in choices:
        return text
    part = _told(text)
    if choices:
        return option_letter(part, choices) or option_letter(text, choices) or part
    if kind in ("integer", "float"):
        numbers = _FOUND_NUMBER.findall(part) or _FOUND_NUMBER.findall(text)
        return str(numbers[-1]).replace(",", "") if numbers else ""
    if kind == "list":
        lists = _FOUND_LIST.findall(part) or _FOUND_LIST.findall(text)
        return str(lists[-1]) if lists else ""
    return part.strip().rstrip(".").strip("\"'$ ")


def _told(text: str) -> str:
    boxed = _BOXED.findall(text)
    if boxed:
        return str(boxed[-1])
    stated = _STATED.findall(text)
    return str(stated[-1]) if stated else text


def normalise_answer(
    extraction: str, *, choices: Sequence[str] = (), kind: Kind = "text", precision: int = 0
) -> str | None:
    """Return an extracted answer as MathVista compares it; None where it is not of its kind.

    Args:
        extraction: the answer taken out of a response.
        choices: options; a letter becomes its option, anything else the option nearest by edit distance.
        kind: type of the answer, where there are no options.
        precision: decimals of a float.
    """
    text = extraction.strip()
    if choices:
        letter = _BRACKETED.findall(text)
        text = letter[0].upper() if letter else text
        if len(text) == 1 and text in LETTERS[: len(choices)]:
            return choices[LETTERS.index(text)]
        return min(choices, key=lambda choice: levenshtein(text, choice)) if text else None
    try:
        if kind == "integer":
            return str(int(float(text)))
        if kind == "float":
            return str(round(float(text), precision))
    except (ValueError, OverflowError):
        return None
    return text


def same_answer(found: str | None, target: str) -> bool:
    """Tell whether a normalised answer is the target, as texts without outer space."""
    return found is not None and found.strip() == target.strip()


def same_expression(found: str, target: str) -> bool:
    """Tell whether two free answers are equal but for space, case, dollar signs, a final period and degrees.

    A number may be written otherwise (".5", "0.50"). This is stricter than a judge, who also takes "50 cm" for "0.5 m".
    """
    one, other = _expression(found), _expression(target)
    if one == other:
        return bool(one)
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def _expression(text: str) -> str:
    text = text.replace("\\left", "").replace("\\right", "").replace("^\\circ", "").replace("°", "")
    return re.sub(r"[\s$]", "", text.lower()).rstrip(".").removeprefix("\\(").removesuffix("\\)")

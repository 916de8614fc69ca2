"""Denotation accuracy of WikiTableQuestions (Pasupat and Liang 2015), and the true-or-false rule of TabFact.

Values are compared, not strings: numbers within 1e-6, dates by their parts, texts after normalisation; a list is right
if it holds as many different values as the target and a match for each.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

_CLOSE = 1e-6
_QUOTES = str.maketrans({**dict.fromkeys("‘’´`", "'"), **dict.fromkeys("“”", '"'), **dict.fromkeys("‐‑‒–—−", "-")})
_CITATION = re.compile(r"((?<!^)\[[^\]]*\]|\[\d+\]|[•♦†‡*#+])*$")
_PARENTHESIS = re.compile(r"(?<!^)( \([^)]*\))*$")
_QUOTED = re.compile(r'^"([^"]*)"$')

#: Year, month, day; -1 where a part is open ("xx").
Date = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Value:
    """One value: its normalised text and, where it is one, its number or date."""

    text: str
    number: float | None = None
    date: Date | None = None

    def matches(self, other: Value) -> bool:
        """Tell whether two values mean the same."""
        if self.text == other.text:
            return True
        if self.number is not None and other.number is not None:
            return abs(self.number - other.number) < _CLOSE
        return self.date is not None and self.date == other.date

    @property
    def identity(self) -> object:
        """What makes a value one and the same within a list."""
        return next(part for part in (self.number, self.date, self.text) if part is not None)


def normalise(text: str) -> str:
    """Return a text without diacritics, citations, a trailing parenthesis, outer quotes, final period; lower case."""
    decomposed = unicodedata.normalize("NFKD", text)
    text = "".join(char for char in decomposed if unicodedata.category(char) != "Mn").translate(_QUOTES)
    before = None
    while text != before:
        before = text
        text = _CITATION.sub("", text.strip())
        text = _PARENTHESIS.sub("", text.strip())
        text = _QUOTED.sub(r"\1", text.strip())
    return " ".join(text.removesuffix(".").lower().split())


def value(text: str) -> Value:
    """Return what a text means: a number ("12", "1.5e3"), a date ("2004-7-xx"), or itself."""
    plain = normalise(text)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return Value(plain, number=float(round(number)) if abs(number - round(number)) < _CLOSE else number)
    date = _date(text)
    if date is not None and date[1:] == (-1, -1):
        return Value(plain, number=float(date[0]))
    return Value(plain, date=date)


def _date(text: str) -> Date | None:
    parts = text.lower().split("-")
    if len(parts) != 3:
        return None
    try:
        year = -1 if parts[0] in ("xx", "xxxx") else int(parts[0])
        month, day = (-1 if part == "xx" else int(part) for part in parts[1:])
    except ValueError:
        return None
    if (year, month, day) == (-1, -1, -1) or month not in (-1, *range(1, 13)) or day not in (-1, *range(1, 32)):
        return None
    return year, month, day


def values(text: str) -> list[Value]:
    """Return the different values of a list written with | between its items; \\p stands for a bar in one."""
    found: dict[object, Value] = {}
    for item in text.split("|"):
        one = value(item.replace(r"\n", "\n").replace(r"\p", "|").replace("\\\\", "\\"))
        found.setdefault(one.identity, one)
    return list(found.values())


def same_denotation(prediction: str, target: str) -> bool:
    """Tell whether two lists of values mean the same, in any order; a prediction may write || between items."""
    found, wanted = values(prediction.replace("||", "|")), values(target)
    return len(found) == len(wanted) and all(any(one.matches(other) for other in found) for one in wanted)


def says_true(text: str) -> bool | None:
    """Return whether an answer holds "true" or "false"; None where it holds both or neither, which is wrong."""
    text = text.lower()
    true, false = "true" in text, "false" in text
    return None if true == false else true

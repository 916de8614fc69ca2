"""Which option an answer chooses, in English or Korean, and the circular rule of MMBench (Liu et al. 2023)."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cache

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: A capital letter that is no part of a word; "A" and "I" before most words are words themselves.
_ALONE = re.compile(r"(?<![A-Za-z0-9'])(?![AI]\s+(?!and\b|or\b|is\b)[A-Za-z])([A-Z])(?![A-Za-z0-9'])")
_SCIENCEQA = re.compile(r"The answer is ([A-Z])\.")


def option_letter(text: str, choices: Sequence[str]) -> str | None:
    """Return the letter of the option that an answer chooses; None where it chooses none, or several.

    In this order: the answer is a letter ("B", "(b)", "**B**."); it begins with one that a mark follows ("B. cat",
    "(B) cat", "B: cat", "B입니다"); it states one ("The answer is B", "Answer: (B)", "정답은 B입니다"); it is, or
    contains, the text of exactly one option; exactly one capital letter stands alone in it ("It's B", "\\boxed{B}"). A
    word "A", "a" or "I" within a sentence is no letter.

    Args:
        text: what the model said.
        choices: texts of the options, A first; at most 26.
    """
    letters = LETTERS[: len(choices)]
    text = text.strip().replace("**", "")
    for pattern in _patterns(letters):
        found = {next(filter(None, match.groups())).upper() for match in pattern.finditer(text)}
        if found:
            return found.pop() if len(found) == 1 else None
    by_text = _by_text(text, choices, letters)
    if by_text is not None:
        return by_text
    alone = {letter for letter in _ALONE.findall(text) if letter in letters}
    return alone.pop() if len(alone) == 1 else None


@cache
def _patterns(letters: str) -> tuple[re.Pattern[str], ...]:
    upper, either = f"[{letters}]", f"[{letters}{letters.lower()}]"
    bracketed = rf"[(\[]({either})[)\]]"
    # "A" before a small word is an article, unless that word gives a reason.
    bare = rf"(?!A\s+(?!because|since|as|for)[a-z])({upper})(?![A-Za-z0-9'])"
    states = r"(?:\banswer(?:\s+is)?|\boption|\bchoice|정답|답변|답)\s*(?:은|는|이|:|：|is)*\s*(?:option\s+)?"
    return (
        re.compile(rf"\A[(\[\"'<]?({either})[)\]\"'>]?[.:,]?\Z"),
        re.compile(rf"\A(?:{bracketed}|({upper})(?:[.:,)](?=\s|\Z)|(?=\s?(?:입니다|이다|번|예요|이에요))))"),
        re.compile(rf"(?i:{states})(?:{bracketed}|[\"']?{bare})"),
    )


def _by_text(text: str, choices: Sequence[str], letters: str) -> str | None:
    said = _plain(text)
    cleaned = [_plain(choice) for choice in choices]
    equal = [letter for letter, choice in zip(letters, cleaned, strict=True) if choice and choice == said]
    if equal:
        return equal[0] if len(equal) == 1 else None
    held = [letter for letter, choice in zip(letters, cleaned, strict=True) if choice and f" {choice} " in f" {said} "]
    return held[0] if len(held) == 1 else None


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[.,;:!?\"'()\[\]]+(?=\s|\Z)|(?<!\S)[\"'(\[]+", " ", text.lower()).split())


def scienceqa_letter(text: str, *, options: int = 5) -> str | None:
    """Return the letter by LLaVA's rule for ScienceQA: the letter alone, "B. ...", or one "The answer is B."."""
    letters = LETTERS[:options]
    text = text.strip()
    if len(text) == 1 and text in letters:
        return text
    if len(text) >= 3 and text[0] in letters and text[1:3] == ". ":
        return text[0]
    found = _SCIENCEQA.findall(text)
    return found[0] if len(found) == 1 and found[0] in letters else None


def rotations(choices: Sequence[str]) -> list[tuple[tuple[str, ...], int]]:
    """Return every rotation of the options with its shift: option i of the original stands at (i - shift) mod n."""
    count = len(choices)
    return [(tuple(choices[(i + shift) % count] for i in range(count)), shift) for shift in range(count)]


def circular(right: Iterable[tuple[Hashable, bool]]) -> Mapping[Hashable, bool]:
    """Return for each question whether it was answered rightly under every rotation of its options.

    Args:
        right: the question and whether the answer was right, one pair a rotation.
    """
    found: dict[Hashable, bool] = {}
    for question, one in right:
        found[question] = found.get(question, True) and one
    return found

"""Which fields of a row are question, image and candidates, in M2KR's flat form, its hub form, or as named."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import itemgetter
from typing import Any

from ablab.contract.failure import ConfigError
from ablab.contract.tables import Fields
from ablab.data.documents import nearest_fields
from ablab.data.m2kr import MISSING, is_missing

#: Names by which each role is found, the first that occurs counts.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "id": ("data_id", "question_id"),
    "question": ("question",),
    "image": ("image_path", "img_path"),
    "answers": ("answer", "answers"),
    "passage_ids": ("passage_id", "pos_item_ids"),
    "passage_texts": ("passage_text", "pos_item_contents"),
    "passage_images": ("passage_image_path",),
}
#: Buckets of the number of candidates: name and the largest number in it.
BUCKETS: tuple[tuple[str, float], ...] = (
    ("0", 0), ("1", 1), ("2-3", 3), ("4-5", 5), ("6-10", 10), ("11+", float("inf")),
)  # fmt: skip
#: All of them hold "wh" or "how".
_ENGLISH = "what|which|who|whom|whose|when|where|why|how"
_KOREAN = {
    "무엇": "무엇", "뭐": "무엇", "뭘": "무엇", "무슨": "무슨", "어떤": "어떤", "어느": "어느", "누구": "누구",
    "누가": "누구", "언제": "언제", "어디": "어디", "왜": "왜", "어떻게": "어떻게", "얼마": "얼마", "몇": "몇",
}  # fmt: skip
_WORD = re.compile(rf"\b({_ENGLISH})\b|({'|'.join(_KOREAN)})", re.IGNORECASE)
_YES_NO = frozenset((
    "is", "are", "was", "were", "am", "do", "does", "did", "can", "could", "will", "would", "shall", "should", "has",
    "have", "had", "may", "might", "must",
))  # fmt: skip


#: What a question is that begins with one of these words.
_FIRST = {**dict.fromkeys(_YES_NO, "yes/no"), **{word: word for word in _ENGLISH.split("|")}}


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Field of each role; None where the rows have none."""

    id: str | None = None
    question: str | None = None
    image: str | None = None
    answers: str | None = None
    passage_ids: str | None = None
    passage_texts: str | None = None
    passage_images: str | None = None

    @property
    def candidates(self) -> str | None:
        """The field whose length is the number of candidates."""
        return self.passage_ids or self.passage_texts or self.passage_images

    @property
    def of_queries(self) -> tuple[str, ...]:
        """The fields that are looked at value by value: id, question and image."""
        return tuple(name for name in (self.id, self.question, self.image) if name is not None)


def find_roles(given: Fields, known: Collection[str], *, file: str) -> Roles:
    """Return the roles of fields that rows have.

    Raises:
        ConfigError: a field that is named does not occur; the message lists those that do, nearest first.
    """
    found: dict[str, str | None] = {}
    for field in fields(Roles):
        name = getattr(given, field.name)
        if name is not None and name not in known:
            problem = f"fields.{field.name} is {name!r}, which none of the first rows has"
            raise ConfigError(f"{file}: {problem}; {nearest_fields(name, known)}", file=file)
        found[field.name] = name or next((each for each in _NAMES[field.name] if each in known), None)
    return Roles(**found)


def count_of(value: Any) -> int:
    """Return the number of candidates of a field: the length of a list, 1 of a scalar, 0 of a missing value."""
    if isinstance(value, list | tuple):
        return len(value)
    return 0 if is_missing(value) else 1


def bucket_of(count: int) -> str:
    """Return the bucket of a number of candidates."""
    return next(name for name, most in BUCKETS if count <= most)


def question_word(question: Any) -> str:
    """Return the first question word of a text; yes/no where it begins like one, else other; none without text."""
    if not isinstance(question, str) or not question.strip():
        return "none"
    return _FIRST.get(question.split(None, 1)[0].lower()) or _found_word(question)


def question_words(questions: Sequence[str], pieces: Sequence[Sequence[str]]) -> list[str]:
    """Return `question_word` of questions that are not blank; `pieces` are the words of each."""
    firsts = map(_FIRST.get, map(str.lower, map(itemgetter(0), pieces)))
    return [word or _found_word(question) for word, question in zip(firsts, questions, strict=True)]


def _found_word(question: str) -> str:
    if question.isascii():
        lower = question.lower()
        if "wh" not in lower and "how" not in lower:
            return "other"
    found = _WORD.search(question)
    if found is None:
        return "other"
    return found[1].lower() if found[1] else _KOREAN[found[2]]


def missing_items(values: Collection[Any]) -> int:
    """Return how many entries of a list are missing."""
    try:
        # Most lists lack nothing, and this looks at all entries at once.
        if MISSING.isdisjoint(map(str.strip, values)):
            return 0
    except TypeError:
        pass
    return sum(map(is_missing, values))


def as_list(value: Any) -> list[Any]:
    """Return the entries of a list, a scalar as one, nothing of a missing value."""
    if isinstance(value, list | tuple):
        return list(value)
    return [] if is_missing(value) else [value]

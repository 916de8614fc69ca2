"""Questions of one's own in LLaVA's format, scored by a rule of this package.

A JSONL file of {question_id, image, text, answer} (or id, images, question, answers); besides these a row may have
`choices`, `category` or `group` (reported apart), `language` (en, ko) and `scorer`. The option `scorer` names the rule
of rows without one: exact, choice, contains, anls, relaxed, vqa, denotation, yes-no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ablab.data.readers.records import Record
from ablab.metrics.anls import anls
from ablab.metrics.choice import LETTERS, option_letter
from ablab.metrics.containment import contains
from ablab.metrics.denotation import same_denotation
from ablab.metrics.exact import exact_match
from ablab.metrics.pope import says_yes
from ablab.metrics.relaxed import relaxed
from ablab.metrics.vqa import vqa_accuracy
from ablab.tasks.vision_language.benchmarks.protocol import (
    Benchmark,
    Files,
    Marked,
    Marks,
    Question,
    mean_score,
    percentages,
)
from ablab.tasks.vision_language.benchmarks.reading import Gallery, rows, texts

SCORERS: dict[str, Callable[[str, Question], float]] = {
    "exact": lambda text, one: float(any(exact_match(text, answer) for answer in one.answers)),
    "choice": lambda text, one: float(option_letter(text, one.choices) in one.answers),
    "contains": lambda text, one: float(contains(text, one.answers)),
    "anls": lambda text, one: anls(text, one.answers),
    "relaxed": lambda text, one: float(any(relaxed(text, answer) for answer in one.answers)),
    "vqa": lambda text, one: vqa_accuracy(text, one.answers),
    "denotation": lambda text, one: float(any(same_denotation(text, answer) for answer in one.answers)),
    "yes-no": lambda text, one: float(says_yes(text) is (one.answers[0].strip().lower() in ("yes", "예", "네"))),
}


def read(files: Files) -> Iterator[Question]:
    """Yield the questions; the group is the category."""
    gallery = Gallery(files)
    usual = str(files.options.get("scorer", "exact"))
    for record in rows(files):
        text = record.text("text", "question")
        choices = tuple(map(str, record.get("choices") or ()))
        language = str(record.get("language") or "en")
        if language not in ("en", "ko"):
            record.refuse(f"its language is {language!r}, expected en or ko")
        yield Question(
            id=record.text("question_id", "id"),
            prompt=text,
            question=text,
            images=gallery.of(record, "image", "images"),
            choices=choices,
            answers=texts(record.need("answer", "answers")),
            group=str(record.get("category", "group") or ""),
            language="ko" if language == "ko" else "en",
            extra={"scorer": _scorer(record, usual, choices)},
        )


def _scorer(record: Record, usual: str, choices: Sequence[Any]) -> str:
    name = str(record.get("scorer") or usual)
    if name not in SCORERS:
        record.refuse(f"its scorer is {name!r}", f"use one of {', '.join(SCORERS)}")
    if name == "choice" and not 1 < len(choices) <= len(LETTERS):
        record.refuse(f"the scorer choice needs `choices`; it has {len(choices)}")
    return name


def mark(question: Question, text: str) -> Marks:
    """Mark by the rule the row names; an empty answer is wrong under each."""
    if not text.strip():
        return {"score": 0.0}
    return {"score": SCORERS[question.extra["scorer"]](text, question)}


def combine(marked: Sequence[Marked]) -> dict[str, float]:
    """Return 100 x the mean score, over all, by category, and by language where there are both."""
    numbers = percentages(marked)
    languages = {language: [one for one in marked if one.question.language == language] for language in ("en", "ko")}
    if all(languages.values()):
        for name, part in languages.items():
            mean = mean_score(part)
            if mean is not None:
                numbers[name] = 100 * mean
    return numbers


QUESTIONS = Benchmark(title="Questions", read=read, mark=mark, combine=combine)

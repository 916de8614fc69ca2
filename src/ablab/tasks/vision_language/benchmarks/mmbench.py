"""MMBench (Liu et al. 2023), English and Korean: a question counts as right only if it is under every rotation.

Reads the official TSV (index, question, hint, A to D, answer, category, image in base64) or the hub (K-MMBench). Files
that hold the rotations have them as rows whose index is that of the question plus a multiple of 1,000,000; where there
are none, the options are rotated here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from ablab.data.readers.records import Record
from ablab.metrics.choice import LETTERS, circular, option_letter, rotations
from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Files, Language, Marked, Marks, Picture, Question
from ablab.tasks.vision_language.benchmarks.reading import (
    LETTER,
    LETTER_KO,
    Gallery,
    filled,
    lettered,
    options_of,
    right_letter,
    rows,
)

#: Distance of the indices of two rotations of a question.
STRIDE = 1_000_000


def read_english(files: Files) -> Iterator[Question]:
    """Yield every rotation of the English questions."""
    return _read(files, "en")


def read_korean(files: Files) -> Iterator[Question]:
    """Yield every rotation of the Korean questions."""
    return _read(files, "ko")


def _read(files: Files, language: Language) -> Iterator[Question]:
    light = dataclasses.replace(files, pictures=False)
    rotated = any(int(float(one.text("index"))) >= STRIDE for one in rows(light, split="dev"))
    gallery = Gallery(files)
    for record in rows(files, split="dev"):
        index = int(float(record.text("index")))
        options = options_of(record)
        if not options:
            record.refuse("it has no options")
        right = right_letter(record, options)
        images = gallery.of(record, "image", index=str(index))
        if rotated:
            yield _question(record, index, options, right, images, language)
            continue
        for shown, shift in rotations(options):
            letter = LETTERS[(LETTERS.index(right) - shift) % len(options)] if right else ""
            yield _question(record, index + shift * STRIDE, shown, letter, images, language)


def _question(
    record: Record,
    index: int,
    options: tuple[str, ...],
    letter: str,
    images: tuple[Picture, ...],
    language: Language,
) -> Question:
    hint = f"{str(record.get('hint')).strip()}\n" if filled(record.get("hint")) else ""
    text = record.text("question").strip()
    return Question(
        id=str(index),
        prompt=f"{hint}{text}\n{lettered(options)}{LETTER if language == 'en' else LETTER_KO}",
        question=f"{hint}{text}",
        images=images,
        choices=options,
        answers=(letter,) if letter else (),
        group=str(record.get("category") or ""),
        language=language,
        unit=str(index % STRIDE),
    )


def mark(question: Question, text: str) -> Marks:
    """Mark one rotation."""
    return {"score": float(option_letter(text, question.choices) == question.answers[0])}


def combine(marked: Sequence[Marked]) -> dict[str, float]:
    """Return the percentage right under every rotation, over all and by category; `first` counts the first alone."""
    right = circular((one.question.unit, one.score == 1.0) for one in marked)
    groups: dict[str, dict[str, bool]] = {"": {}}
    first: dict[str, bool] = {}
    for one in marked:
        unit, passed = one.question.unit, right[one.question.unit]
        groups[""][unit] = passed
        groups.setdefault(one.question.group, {})[unit] = passed
        first.setdefault(unit, one.score == 1.0)
    numbers = {name: _percentage(part) for name, part in groups.items()}
    return numbers | {"first": _percentage(first)}


def _percentage(right: dict[str, bool]) -> float:
    return 100 * sum(right.values()) / len(right)


MMBENCH_EN = Benchmark(title="MMBench-EN", read=read_english, mark=mark, combine=combine)
MMBENCH_KO = Benchmark(title="MMBench-KO", read=read_korean, mark=mark, combine=combine)

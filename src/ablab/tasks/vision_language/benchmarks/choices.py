"""Benchmarks of single choices: MMStar (Chen et al. 2024), SEED-Bench (Li et al. 2023), K-DTCBench (NCSOFT 2024).

MMStar: parquet or TSV (options within the question or in columns A to D). SEED-Bench: SEED-Bench.json, its questions
about single images. K-DTCBench: 240 Korean questions about documents, tables and charts; it has a test split and no
train split, so data to train on that bears its name is leakage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ablab.data.readers.records import Record, read_json_file
from ablab.metrics.choice import LETTERS, option_letter
from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Files, Language, Marks, Question, percentages
from ablab.tasks.vision_language.benchmarks.reading import (
    LETTER,
    LETTER_KO,
    Gallery,
    lettered,
    options_of,
    questions_of,
    right_letter,
    rows,
)

_INLINE = re.compile(r"(?:^|[\s,])\(?([A-F])[:.)]\s*(.*?)(?=(?:,?\s*|\n)\(?[A-F][:.)]\s|\s*\Z)", re.DOTALL)
#: K-DTCBench's options as its own card asks them.
_KOREAN = ": "


def read_mmstar(files: Files) -> Iterator[Question]:
    """Yield MMStar's questions; the group is the core capability."""
    gallery = Gallery(files)
    for record in rows(files, split="val"):
        options = options_of(record)
        text = record.text("question").strip()
        asked = f"{text}\n{lettered(options)}" if options else text
        yield _question(record, record.text("index"), asked, text, options or _inline(text), gallery, LETTER)


def _inline(text: str) -> tuple[str, ...]:
    """Return the options that stand within a question, as "A: cat, B: dog" after "Options:"."""
    found: list[str] = []
    for letter, choice in _INLINE.findall(text.partition("Options:")[2]):
        if letter == LETTERS[len(found)]:
            found.append(choice.strip())
    return tuple(found) or tuple("ABCD")


def read_seed(files: Files) -> Iterator[Question]:
    """Yield SEED-Bench's questions about images; the group is the kind of question."""
    gallery = Gallery(files)
    kinds: dict[str, str] = {}
    if files.hub is None and str(files.questions).endswith(".json"):
        types = read_types(files)
        kinds = {str(number): name for name, number in types.items()}
    for record in rows(files, inside="questions"):
        if str(record.get("data_type") or "image").lower() == "video":
            continue
        options = options_of(record)
        text = record.text("question").strip()
        kind = str(record.get("question_type_id") or "")
        yield _question(
            record, record.text("question_id"), f"{text}\n{lettered(options)}", text, options, gallery, LETTER,
            group=kinds.get(kind, kind),
        )  # fmt: skip


def read_types(files: Files) -> dict[str, int]:
    """Return SEED-Bench's kinds of question by name."""
    content = read_json_file(questions_of(files))
    found = content.get("question_type", {}) if isinstance(content, dict) else {}
    return {str(name): int(number) for name, number in found.items()}


def read_dtc(files: Files) -> Iterator[Question]:
    """Yield K-DTCBench's questions; the group is document, table or chart."""
    gallery = Gallery(files)
    for record in rows(files):
        options = options_of(record)
        text = record.text("question").strip()
        listed = ", ".join(f"{letter}{_KOREAN}{choice}" for letter, choice in zip(LETTERS, options, strict=False))
        asked = f"{text}\nOptions: {listed}"
        yield _question(record, record.text("index"), asked, text, options, gallery, LETTER_KO, language="ko")


def _question(
    record: Record,
    name: str,
    asked: str,
    text: str,
    options: tuple[str, ...],
    gallery: Gallery,
    instruction: str,
    *,
    group: str = "",
    language: Language = "en",
) -> Question:
    letter = right_letter(record, options)
    return Question(
        id=name,
        prompt=f"{asked}{instruction}",
        question=text,
        images=gallery.of(record, "image", index=name) or gallery.named(str(record.get("data_id"))),
        choices=options,
        answers=(letter,) if letter else (),
        group=group or str(record.get("category") or ""),
        language=language,
    )


def mark(question: Question, text: str) -> Marks:
    """Mark the option letter (`ablab.metrics.choice.option_letter`)."""
    return {"score": float(option_letter(text, question.choices) == question.answers[0])}


MMSTAR = Benchmark(title="MMStar", read=read_mmstar, mark=mark, combine=percentages)
SEED_BENCH = Benchmark(title="SEED-Bench", read=read_seed, mark=mark, combine=percentages)
K_DTCBENCH = Benchmark(title="K-DTCBench", read=read_dtc, mark=mark, combine=percentages)

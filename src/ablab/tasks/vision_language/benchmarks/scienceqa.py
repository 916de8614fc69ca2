"""ScienceQA (Lu et al. 2022), the test questions that have an image: option letter by LLaVA's rule.

Reads the official folder (problems.json and pid_splits.json, images in images/<split>/<id>/), or ScienceQA-IMG of the
hub.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ablab.contract.failure import DataError
from ablab.data.readers.records import Record, read_json_file
from ablab.metrics.choice import LETTERS, scienceqa_letter
from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Files, Marks, Picture, Question, percentages
from ablab.tasks.vision_language.benchmarks.reading import LETTER, Gallery, lettered, questions_of, rows


def read(files: Files) -> Iterator[Question]:
    """Yield the questions with an image; the group is the subject."""
    gallery = Gallery(files)
    if files.hub is not None:
        for record in rows(files):
            yield _question(record, f"{record.row}", gallery.of(record, "image"))
        return
    folder = questions_of(files)
    split = files.split or "test"
    problems = read_json_file(folder / "problems.json")
    splits = read_json_file(folder / "pid_splits.json")
    if split not in splits:
        raise DataError(f"{folder / 'pid_splits.json'}: no split {split!r}; it has {', '.join(splits)}")
    for row, name in enumerate(splits[split], 1):
        values: dict[str, Any] = problems.get(name) or {}
        record = Record(values, str(folder / "problems.json"), row, name)
        image = record.get("image")
        if image:
            # LLaVA keeps test/<id>/image.png below `images`, the official folder below images/.
            below = "" if files.images is not None else "images/"
            yield _question(record, name, gallery.named(f"{below}{split}/{name}/{image}"))


def _question(record: Record, name: str, images: tuple[Picture, ...]) -> Question:
    choices = tuple(map(str, record.need("choices")))
    hint, text = record.get("hint") or "", record.text("question")
    context = f"Context: {hint}\n" if str(hint).strip() else ""
    right = int(record.need("answer"))
    if not 0 <= right < len(choices):
        record.refuse(f"its answer is option {right}, of {len(choices)}")
    return Question(
        id=name,
        prompt=f"{context}{text}\n{lettered(choices)}{LETTER}",
        question=text,
        images=images,
        choices=choices,
        answers=(LETTERS[right],),
        group=str(record.get("subject") or ""),
    )


def mark(question: Question, text: str) -> Marks:
    """Mark the option letter, as LLaVA takes it from an answer."""
    return {"score": float(scienceqa_letter(text, options=len(question.choices)) == question.answers[0])}


SQA = Benchmark(title="SQA", read=read, mark=mark, combine=percentages)

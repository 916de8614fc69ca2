"""GQA (Hudson and Manning 2019): exact match on testdev-balanced.

Reads testdev_balanced_questions.json (questions by id, with imageId and answer), or LLaVA's question file (JSONL) with
that JSON as `answers`. From the hub: the instructions, with the images as files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from ablab.data.readers.records import read_records
from ablab.metrics.exact import exact_match
from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Files, Marked, Marks, Question, percentages
from ablab.tasks.vision_language.benchmarks.reading import SHORT, Gallery, rows


def read(files: Files) -> Iterator[Question]:
    """Yield the questions; the group is GQA's structural type (verify, query, choose, logical, compare)."""
    gallery = Gallery(files)
    truth = {one.key: one for one in read_records(files.answers)} if files.answers is not None else {}
    for record in rows(files, split="testdev"):
        name = record.key or record.text("question_id", "id")
        official = truth.get(name, record)
        text = record.text("question", "text").removesuffix(SHORT)
        image = record.get("image")
        types = official.get("types")
        yield Question(
            id=name,
            prompt=f"{text}{SHORT}",
            question=text,
            images=gallery.of(record, "image") if image is not None else gallery.named(f"{record.text('imageId')}.jpg"),
            answers=(str(official.need("answer")),) if official.get("answer") is not None else (),
            group=str(types.get("structural") or "") if isinstance(types, dict) else "",
        )


def mark(question: Question, text: str) -> Marks:
    """Mark by exact match, case and punctuation ignored."""
    return {"score": float(exact_match(text, question.answers[0]))}


def submission(marked: Sequence[Marked]) -> tuple[str, str]:
    """Return the file of GQA's own evaluation script."""
    rows = [{"questionId": one.question.id, "prediction": one.text.rstrip(".").lower()} for one in marked]
    return "testdev_balanced_predictions.json", json.dumps(rows)


GQA = Benchmark(title="GQA", read=read, mark=mark, combine=percentages, submission=submission)

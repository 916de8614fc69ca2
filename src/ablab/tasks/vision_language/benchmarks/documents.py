"""DocVQA (Mathew et al. 2021) and InfographicVQA (Mathew et al. 2022): ANLS, the best over the accepted answers.

Reads the official JSON ({"data": [{questionId, question, image or image_local_name, answers}]}) or the hub. The test
splits have no answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from ablab.metrics.anls import anls
from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Files, Marked, Marks, Question, percentages
from ablab.tasks.vision_language.benchmarks.reading import SHORT, Gallery, rows, texts


def read(files: Files) -> Iterator[Question]:
    """Yield the questions."""
    gallery = Gallery(files)
    for record in rows(files, inside="data", split="validation"):
        text = record.text("question")
        yield Question(
            id=record.text("questionId", "question_id"),
            prompt=f"{text}{SHORT}",
            question=text,
            images=gallery.of(record, "image_local_name", "image"),
            answers=texts(record.get("answers")),
        )


def mark(question: Question, text: str) -> Marks:
    """Mark by ANLS."""
    return {"score": anls(text, question.answers)}


def submission(marked: Sequence[Marked]) -> tuple[str, str]:
    """Return the file of the official server (rrc.cvc.uab.es)."""
    rows = [{"questionId": int(one.question.id), "answer": one.text} for one in marked if one.question.id.isdecimal()]
    return "document_answers.json", json.dumps(rows, ensure_ascii=False)


DOCVQA = Benchmark(title="DocVQA", read=read, mark=mark, combine=percentages, submission=submission)
INFOVQA = Benchmark(title="InfoVQA", read=read, mark=mark, combine=percentages)

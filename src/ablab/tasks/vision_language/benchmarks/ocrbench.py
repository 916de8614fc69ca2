"""OCRBench (Liu et al. 2023): 1000 questions, counted where the answer is contained; no F1.

Reads OCRBench.json (dataset_name, image_path, question, answers, type), the TSV, or the hub.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from ablab.metrics.containment import contains
from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Files, Marked, Marks, Question, percentages
from ablab.tasks.vision_language.benchmarks.reading import Gallery, rows, texts

#: Part whose answers are formulas: compared without spaces, with case.
_FORMULAS = "hme100k"
_ALL = 1000


def read(files: Files) -> Iterator[Question]:
    """Yield the questions; the group is the kind of task."""
    gallery = Gallery(files)
    for record in rows(files):
        text = record.text("question").strip()
        yield Question(
            id=record.name("id", "index"),
            prompt=text,
            question=text,
            images=gallery.of(record, "image_path", "image"),
            answers=texts(_listed(record.need("answers", "answer"))),
            group=str(record.get("type", "question_type", "category") or ""),
            extra={"dataset": str(record.get("dataset_name", "dataset") or "")},
        )


def _listed(value: Any) -> Any:
    """Return the list that a TSV holds as text ("['a', 'b']"), anything else as it is."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value
    return value


def mark(question: Question, text: str) -> Marks:
    """Mark by containment."""
    formula = str(question.extra["dataset"]).lower() == _FORMULAS
    return {"score": float(contains(text, question.answers, spaces=not formula, case=formula))}


def combine(marked: Sequence[Marked]) -> dict[str, float]:
    """Return the count of right answers, of 1000 (scaled where fewer were asked), and percentages by task."""
    found = percentages(marked)
    return found | {"": found[""] * _ALL / 100}


OCRBENCH = Benchmark(title="OCRBench", read=read, mark=mark, combine=combine, percent=100 / _ALL)

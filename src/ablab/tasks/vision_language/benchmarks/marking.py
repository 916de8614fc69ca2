"""Marks the answers to a benchmark, by its rule or by a judge; judgements are asked several at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Judge, Marked, Marks, Question


def mark_all(
    benchmark: Benchmark, answered: Sequence[tuple[Question, str]], *, judge: Judge | None = None, parallel: int = 1
) -> tuple[Marked, ...]:
    """Return every answer with its marks, in order; None as marks where the split withholds the answer, where there
    is no judge, or where the judge failed."""
    if benchmark.judge is None or judge is None:
        return tuple(
            Marked(question=question, text=text, marks=_by_rule(benchmark, question, text))
            for question, text in answered
        )
    judging = benchmark.judge
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        marks = list(pool.map(lambda one: judging(one[0], one[1], judge), answered))
    return tuple(
        Marked(question=question, text=text, marks=found)
        for (question, text), found in zip(answered, marks, strict=True)
    )


def _by_rule(benchmark: Benchmark, question: Question, text: str) -> Marks | None:
    if benchmark.mark is None or not question.answers:
        return None
    return benchmark.mark(question, text)

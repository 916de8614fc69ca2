"""Questions about pictures of tables: WikiTableQuestions (Pasupat and Liang 2015) and TabFact (Chen et al. 2020), as
TableVQA-Bench (Kim et al. 2024) draws them.

Reads its TSV (a column `split` tells vwtq from vtabfact) or the hub (splits vwtq, vwtq_syn, vtabfact).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from ablab.contract.failure import DataError
from ablab.metrics.denotation import same_denotation, says_true
from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Files, Marks, Question, percentages
from ablab.tasks.vision_language.benchmarks.reading import Gallery, rows, stated

#: The prompts of TableVQA-Bench.
_WTQ = (
    "You are asked to answer questions asked on an image.\n"
    "You should answer the question with a single word.\n"
    "Example: \n"
    "Question: what was the only year mr. wu competed in the olympic games?\n"
    "Answer: 2004\n"
    "Question: which township in pope county, arkansas has the least amount of water area?\n"
    "Answer: Freeman\n"
    "If you have multiple answers, please separate them with || marks. Example: Apple||Banana||Tomato\n\n"
    "Question: {question}\n"
    "Answer:"
)
_TABFACT = (
    "You are asked to answer whether the statement is True or False based on given image\n"
    "You should only answer True or False.\n"
    "Example: \n"
    "Statement: the milwaukee buck win 6 game in the 2010 - 11 season\n"
    "Answer: True\n"
    "Statement: only the top team score above the average of 8.8\n"
    "Answer: False\n\n"
    "Statement: {question}\n"
    "Answer:"
)
_TRUE, _FALSE = frozenset({"1", "true", "entailed"}), frozenset({"0", "false", "refuted"})
Part = Literal["vwtq", "vtabfact"]


def read_wtq(files: Files) -> Iterator[Question]:
    """Yield the questions; the group is real or drawn anew (vwtq, vwtq_syn)."""
    return _read(files, "vwtq", _WTQ)


def read_tabfact(files: Files) -> Iterator[Question]:
    """Yield the statements."""
    for question in _read(files, "vtabfact", _TABFACT):
        if question.answers and question.answers[0].lower() not in _TRUE | _FALSE:
            message = f"TabFact {question.id}: the answer is {question.answers[0]!r}, expected 1 or 0"
            raise DataError(message, file=str(files.questions or files.hub))
        yield question


def _read(files: Files, part: Part, prompt: str) -> Iterator[Question]:
    gallery = Gallery(files)
    for record in rows(files, split=part):
        split = str(record.get("split") or files.split or part)
        if not split.startswith(part):
            continue
        text = record.text("question").strip()
        answer = record.get("answer", "gt")
        name = record.name("qa_id", "index", "id")
        yield Question(
            id=name,
            prompt=prompt.replace("{question}", text),
            question=text,
            images=gallery.of(record, "image", index=name),
            answers=(str(answer).strip(),) if stated(answer) else (),
            group=split if split != part else "",
        )


def mark_wtq(question: Question, text: str) -> Marks:
    """Mark by denotation."""
    return {"score": float(same_denotation(text, question.answers[0]))}


def mark_tabfact(question: Question, text: str) -> Marks:
    """Mark what the answer says of the statement; both or neither is wrong, and counts."""
    said = says_true(text)
    return {"score": float(said is not None and said == (question.answers[0].lower() in _TRUE))}


WTQ = Benchmark(title="WTQ", read=read_wtq, mark=mark_wtq, combine=percentages)
TABFACT = Benchmark(title="TabFact", read=read_tabfact, mark=mark_tabfact, combine=percentages)

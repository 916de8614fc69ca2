"""MathVista (Lu et al. 2024) and MathVerse (Zhang et al. 2024): mathematics in pictures.

MathVista reads testmini.json (problems by id) or the hub; MathVerse testmini.json (a list) or the hub. With a judge the
answer is extracted (MathVista) or compared (MathVerse) by it, as published; without one by rule, which is stricter, so
that numbers compare only among their kind: the fact `benchmark.<name>.marked_by` says which it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from ablab.data.readers.records import Record
from ablab.metrics.choice import LETTERS, option_letter
from ablab.metrics.mathematics import Kind, extract, normalise_answer, same_answer, same_expression
from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Files, Judge, Marks, Question, percentages
from ablab.tasks.vision_language.benchmarks.reading import Gallery, filled, rows, stated

_EXTRACT = """Please read the following example. Then extract the answer from the model response and type it at the \
end of the prompt.

Hint: Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.
Question: Which number is missing?

Model response: The number missing in the sequence is 14.

Extracted answer: 14

Hint: Please answer the question requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], \
[1.2, 1.3, 1.4], at the end.
Question: Between which two years does the line graph saw its maximum peak?

Model response: The line graph saw its maximum peak between 2007 and 2008.

Extracted answer: [2007, 2008]

Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.
Question: What fraction of the shape is blue?
Choices:
(A) 3/11
(B) 8/11
(C) 6/11
(D) 3/5

Model response: The correct answer is (B) 8/11.

Extracted answer: B

{query}

{response}

Extracted answer: """
_COMPARE = """Below are two answers to a math question. Determine whether they are consistent. Only when the model's \
answer completely matches the standard answer are they consistent; for questions that are no multiple choice, the same \
meaning in another form counts as consistent, for example 0.5m and 50cm. Reply with 1 if they are consistent and with \
0 if they are not, and nothing else.

[Question]: {question}
[Standard Answer]: {answer}
[Model Answer]: {response}
Judgement:"""
_HINTS = {
    "integer": "Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, at "
    "the end.",
    "float": "Please answer the question requiring a floating-point number and provide the final value, e.g., 1.2, "
    "1.3, 1.4, at the end.",
    "list": "Please answer the question requiring a Python list as an answer and provide the final list, e.g., [1, 2, "
    "3], [1.2, 1.3, 1.4], at the end.",
    "text": "Please answer the question and provide the final answer at the end.",
}
_KINDS = ("text", "integer", "float", "list")


def read_mathvista(files: Files) -> Iterator[Question]:
    """Yield MathVista's questions with the published query; the group is the task."""
    gallery = Gallery(files)
    for record in rows(files, split="testmini"):
        choices = tuple(map(str, record.get("choices") or ()))
        kind = str(record.get("answer_type") or "text")
        if kind not in _KINDS:
            record.refuse(f"its answer_type is {kind!r}, expected {', '.join(_KINDS)}")
        metadata = record.get("metadata") or {}
        answer = record.get("answer")
        yield Question(
            id=record.key or record.text("pid"),
            prompt=str(record.get("query") or _query(record, choices, kind)),
            question=record.text("question"),
            images=gallery.of(record, "decoded_image") or gallery.of(record, "image"),
            choices=choices,
            answers=(str(answer),) if stated(answer) else (),
            group=str(metadata.get("task") or ""),
            extra={"kind": kind, "precision": int(float(record.get("precision") or 0))},
        )


def _query(record: Record, choices: tuple[str, ...], kind: str) -> str:
    hint = _HINTS[kind]
    if choices:
        hint = "Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."
    unit = f" (Unit: {record.get('unit')})" if filled(record.get("unit")) else ""
    listed = "".join(f"\n({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    options = f"\nChoices:{listed}" if choices else ""
    return f"Hint: {hint}\nQuestion: {record.text('question')}{unit}{options}"


def mark_mathvista(question: Question, text: str) -> Marks:
    """Mark an answer that is extracted by rule."""
    found = extract(text, choices=question.choices, kind=cast(Kind, question.extra["kind"]))
    return _compare(question, found)


def judge_mathvista(question: Question, text: str, judging: Judge) -> Marks | None:
    """Mark an answer that the judge extracts, unless it is plain what it says."""
    plain = text.strip()
    if not plain or plain in question.choices or _is_number(plain, question.extra["kind"]):
        return _compare(question, plain)
    asked = _EXTRACT.format(query=question.prompt, response=text)
    found = judging.ask([{"role": "user", "content": asked}], read=lambda said: said.strip() or None)
    return None if found is None else _compare(question, found)


def _is_number(text: str, kind: Any) -> bool:
    try:
        parse = {"integer": int, "float": float}.get(str(kind))
        return parse is not None and parse(text) is not None
    except ValueError:
        return False


def _compare(question: Question, found: str) -> Marks:
    said = normalise_answer(
        found,
        choices=question.choices,
        kind=cast(Kind, question.extra["kind"]),
        precision=int(question.extra["precision"]),
    )
    return {"score": float(same_answer(said, question.answers[0]))}


def read_mathverse(files: Files) -> Iterator[Question]:
    """Yield MathVerse's questions; the group is the version (Text Dominant, Vision Only, ...)."""
    gallery = Gallery(files)
    for record in rows(files, split="testmini"):
        text = str(record.get("question_for_eval") or record.get("question") or "")
        answer = record.get("answer")
        yield Question(
            id=record.text("sample_index"),
            prompt=str(record.get("query_wo") or record.get("query_cot") or text),
            question=text,
            images=gallery.of(record, "image"),
            choices=_choices(text) if record.get("question_type") == "multi-choice" else (),
            answers=(str(answer),) if stated(answer) else (),
            group=str(record.get("problem_version") or ""),
        )


def _choices(text: str) -> tuple[str, ...]:
    """Return the options of "Choices:", one a line, as "A:cat"."""
    listed = text.partition("Choices:")[2].strip().split("\n")
    found = [line.strip()[2:].strip() for line in listed if line.strip()[1:2] in (":", ".")]
    return tuple(found) if len(found) > 1 else tuple("ABCD")


def mark_mathverse(question: Question, text: str) -> Marks:
    """Mark by option letter, or by an answer that is extracted by rule and equal but for its writing."""
    target = question.answers[0]
    if question.choices:
        return {"score": float(option_letter(text, question.choices) == target.strip().upper())}
    return {"score": float(same_expression(extract(text), target))}


def judge_mathverse(question: Question, text: str, judging: Judge) -> Marks | None:
    """Have an answer compared with the standard one, unless the rule already finds it right, or it is empty."""
    by_rule = mark_mathverse(question, text)
    if by_rule["score"] == 1.0 or not text.strip():
        return by_rule
    asked = _COMPARE.format(question=question.question, answer=question.answers[0], response=text)
    score = judging.ask([{"role": "user", "content": asked}], read=_zero_or_one)
    return None if score is None else {"score": score}


def _zero_or_one(said: str) -> float | None:
    return {"0": 0.0, "1": 1.0}.get(said.strip().removeprefix("Judgement:").strip(" .\n"))


MATHVISTA = Benchmark(
    title="MathVista", read=read_mathvista, mark=mark_mathvista, judge=judge_mathvista, combine=percentages
)
MATHVERSE = Benchmark(
    title="MathVerse", read=read_mathverse, mark=mark_mathverse, judge=judge_mathverse, combine=percentages
)

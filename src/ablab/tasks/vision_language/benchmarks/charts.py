"""ChartQA (Masry et al. 2022): relaxed accuracy; and CharXiv (Wang et al. 2024): judged reasoning about real charts.

ChartQA reads the official folder (test_human.json, test_augmented.json, png/), one such file, or the hub. CharXiv reads
reasoning_val.json (with images/) or the hub; its descriptive questions are not asked. It is judged as published where
there is a judge, else by a rule that is stricter: the fact `benchmark.<name>.marked_by` says which it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ablab.data.readers.records import Record, read_records
from ablab.metrics.mathematics import extract, same_expression
from ablab.metrics.relaxed import relaxed
from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Files, Judge, Marks, Question, percentages
from ablab.tasks.vision_language.benchmarks.reading import Gallery, questions_of, rows

_WORD = "\nAnswer the question with a single word."

#: What CharXiv asks of an answer, and how it grades one, by the kind of answer (text in the chart, text in general,
#: number in the chart, number in general).
_ASKS = {
    1: "* Your final answer must be grounded to some text that is explicitly written and relevant to the question in "
    "the chart.\n* If you need to answer multiple terms, separate them with commas.\n* Unless specified in the "
    "question (such as answering with a letter), you are required to answer the full names of subplots and/or labels "
    "by default.",
    2: "* If there are options in the question, your final answer must conform to one of the options.\n* If there are "
    "additional instructions in the question, follow them accordingly.\n* If there are neither options nor additional "
    "instructions, you are allowed to respond with a short phrase only.",
    3: "* Your final answer must be grounded to a number that is explicitly written and relevant to the question in "
    "the chart, even if it's an approximate value.\n* You are allowed to extract numbers within some text when needed.",
}
_NUMBERS = (
    "Score 1 if and only if the two numbers are exactly equal in value; another notation (0.01 and 10^-2; 1500 and "
    "1.5e3) is acceptable. Score 0 otherwise."
)
#: Kinds of answer from here on are numbers.
_OF_NUMBERS = 3
_GRADES = {
    1: "Score 1 if and only if the final answer and the ground truth refer to the same term; another grammar, form or "
    "order of several terms is acceptable. Score 0 if any term differs (ACC+ and ACC; P-101 and P=101).",
    2: "If the question has predefined options, score 1 only if the final answer is the ground truth exactly. "
    "Otherwise score 1 if both have the same meaning, and 0 if they do not.",
    3: _NUMBERS,
    4: _NUMBERS,
}
_GRADING = """You will be given a question, a ground truth answer and a model response. Extract the final answer from \
the response, compare it with the ground truth, and give a binary score. If there is no response, the score is 0.
{rule}

Question: {question}
Ground truth: {answer}
Response: {response}

Reply with JSON alone: {{"extracted_answer": ..., "score": 0 or 1}}"""
_OBJECT = re.compile(r"\{.*\}", re.DOTALL)


def read_chartqa(files: Files) -> Iterator[Question]:
    """Yield ChartQA's questions; the group is human or augmented."""
    gallery = Gallery(files)
    for record, part in _chartqa_rows(files):
        text = record.text("query", "question")
        name = record.get("imgname")
        found = record.get("label", "answer")
        answer = found[0] if isinstance(found, list) and found else found
        image = str(name) if files.images is not None or files.hub else f"png/{name}"
        yield Question(
            id=f"{part}-{record.row}",
            prompt=f"{text}{_WORD}",
            question=text,
            images=gallery.named(image) if name else gallery.of(record, "image"),
            answers=(str(answer),) if answer is not None else (),
            group=part,
        )


def _chartqa_rows(files: Files) -> Iterator[tuple[Record, str]]:
    if files.hub is not None:
        for record in rows(files):
            kind = record.get("type", "human_or_machine")
            human = kind in ("human_test", "human", 0)
            yield record, "human" if human else "augmented"
        return
    path = questions_of(files)
    split = files.split or "test"
    parts = [path / f"{split}_{name}.json" for name in ("human", "augmented")] if path.is_dir() else [path]
    for part in parts:
        group = "human" if "human" in part.stem else "augmented"
        for record in read_records(part):
            yield record, group


def mark_chartqa(question: Question, text: str) -> Marks:
    """Mark by relaxed accuracy."""
    return {"score": float(relaxed(text, question.answers[0]))}


def read_charxiv(files: Files) -> Iterator[Question]:
    """Yield CharXiv's reasoning questions; `extra` has the kind of answer, 1 to 4."""
    gallery = Gallery(files)
    for record in rows(files, split="validation"):
        kind = int(record.need("inst_category", "reasoning_q_source", "reasoning_a_type"))
        text, answer = record.text("query", "reasoning_q"), record.text("answer", "reasoning_a")
        if kind not in _GRADES:
            record.refuse(f"its kind of answer is {kind}, expected 1 to 4")
        figure = record.name("figure_id", "figure_path")
        images = gallery.of(record, "image") or gallery.named(
            f"{figure}.jpg" if files.images is not None else f"images/{figure}.jpg"
        )
        yield Question(
            id=figure,
            prompt=f"{text}\n{_ASKS.get(kind) or _places(answer)}",
            question=text,
            images=images,
            answers=(answer,),
            group=("text in chart", "text in general", "number in chart", "number in general")[kind - 1],
            extra={"kind": kind},
        )


def _places(answer: str) -> str:
    """Return how a number in general is to be written: with as many decimals as the truth."""
    decimals = len(answer.partition(".")[2])
    if not decimals:
        return "* Your final answer must be an exact integer."
    return f"* Your final answer must be a number with {decimals} decimal places."


def mark_charxiv(question: Question, text: str) -> Marks:
    """Mark by rule: the same number, or the same terms but for case, space and order.

    Stricter than the judge, who also takes another grammar or form of a term.
    """
    answer = question.answers[0]
    if question.extra["kind"] >= _OF_NUMBERS:
        right = same_expression(extract(text, kind="float"), answer) or same_expression(extract(text), answer)
    else:
        found = extract(text)
        right = same_expression(found, answer) or _terms(found) == _terms(answer)
    return {"score": float(right)}


def _terms(text: str) -> list[str]:
    """Return the terms of a list in one order, as they are compared."""
    parts = (" ".join(part.lower().split()).strip(" .\"'") for part in text.replace(" and ", ", ").split(","))
    return sorted(part for part in parts if part)


def judge_charxiv(question: Question, text: str, judging: Judge) -> Marks | None:
    """Have an answer judged right or wrong by CharXiv's rules; an empty one is wrong without asking."""
    if not text.strip():
        return {"score": 0.0}
    rule = _GRADES[question.extra["kind"]]
    asked = _GRADING.format(rule=rule, question=question.question, answer=question.answers[0], response=text)
    score = judging.ask([{"role": "user", "content": asked}], read=read_binary)
    return None if score is None else {"score": score}


def read_binary(said: str) -> float | None:
    """Return the score of a JSON judgement, 0 or 1; None where there is none."""
    found = _OBJECT.search(said)
    try:
        score = json.loads(found[0])["score"] if found else None
    except (ValueError, KeyError, TypeError):
        return None
    return float(score) if score in (0, 1) and not isinstance(score, bool) else None


CHARTQA = Benchmark(title="ChartQA", read=read_chartqa, mark=mark_chartqa, combine=percentages)
CHARXIV = Benchmark(title="CharXiv", read=read_charxiv, mark=mark_charxiv, judge=judge_charxiv, combine=percentages)

"""LLaVA-Bench in the wild (Liu et al. 2023): free answers, judged beside those of a text-only reference model.

Reads the official folder: questions.jsonl, context.jsonl (captions), answers_gpt4.jsonl (the reference), images/; or
the hub, whose rows hold all of them. The number is 100 x mean(model) / mean(reference) over the judged questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Files, Judge, Marked, Marks, Question
from ablab.tasks.vision_language.benchmarks.reading import Gallery, questions_of, read_lines_of, rows

#: The rule of LLaVA's own review, the same for all three categories.
_RULE = (
    "We would like to request your feedback on the performance of two AI assistants in response to the user question "
    "displayed above. The user asks the question on observing an image. For your reference, the visual content in the "
    "image is represented with a few sentences describing the image. \nPlease rate the helpfulness, relevance, "
    "accuracy, level of details of their responses. Each assistant receives an overall score on a scale of 1 to 10, "
    "where a higher score indicates better overall performance.\nPlease first output a single line containing only two "
    "values indicating the scores for Assistant 1 and 2, respectively. The two scores are separated by a space.\nIn "
    "the subsequent line, please provide a comprehensive explanation of your evaluation, avoiding any potential bias "
    "and ensuring that the order in which the responses were presented does not affect your judgment."
)
_SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
_PAIR = re.compile(r"\A\s*(\d+(?:\.\d+)?)[\s,]+(\d+(?:\.\d+)?)\s*\Z")
_LOWEST, _HIGHEST = 1.0, 10.0


def read(files: Files) -> Iterator[Question]:
    """Yield the questions; the group is the category (conv, detail, complex)."""
    gallery = Gallery(files)
    if files.hub is not None:
        for one in rows(files, split="train"):
            text = one.text("question")
            yield _question(
                one.text("question_id"), text, gallery.of(one, "image"), one.get("category"),
                caption=one.need("caption"), reference=one.text("gpt_answer_text"),
            )  # fmt: skip
        return
    folder = questions_of(files)
    captions = {one.text("image"): one.need("caption") for one in read_lines_of(folder / "context.jsonl")}
    answers = {one.text("question_id"): one.text("text") for one in read_lines_of(folder / "answers_gpt4.jsonl")}
    below = "" if files.images is not None else "images/"
    for one in read_lines_of(folder / "questions.jsonl"):
        name, image = one.text("question_id"), one.text("image")
        if image not in captions or name not in answers:
            lacking = "caption in context.jsonl" if image not in captions else "answer in answers_gpt4.jsonl"
            one.refuse(f"there is no {lacking}", "get the whole folder again")
        yield _question(
            name, one.text("text"), gallery.named(f"{below}{image}"), one.get("category"),
            caption=captions[image], reference=answers[name],
        )  # fmt: skip


def _question(
    name: str, text: str, images: tuple[Any, ...], category: Any, *, caption: Any, reference: str
) -> Question:
    context = "\n".join(map(str, caption)) if isinstance(caption, list) else str(caption)
    return Question(
        id=name,
        prompt=text,
        question=text,
        images=images,
        answers=(reference,),
        group=str(category or "").removeprefix("llava_bench_"),
        extra={"caption": context},
    )


def judge(question: Question, text: str, judging: Judge) -> Marks | None:
    """Have both answers judged; None where no two scores could be had."""
    asked = (
        f"[Context]\n{question.extra['caption']}\n\n[Question]\n{question.question}\n\n"
        f"[Assistant 1]\n{question.answers[0]}\n\n[End of Assistant 1]\n\n"
        f"[Assistant 2]\n{text}\n\n[End of Assistant 2]\n\n[System]\n{_RULE}\n\n"
    )
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": asked}]
    pair = judging.ask(messages, read=read_pair)
    if pair is None:
        return None
    return {"score": pair[1] / _HIGHEST, "reference": pair[0] / _HIGHEST}


def read_pair(said: str) -> tuple[float, float] | None:
    """Return the two scores of the first line, of the reference and of the model; None unless both are 1 to 10."""
    found = _PAIR.match(said.strip().split("\n")[0])
    if found is None:
        return None
    pair = float(found[1]), float(found[2])
    return pair if all(_LOWEST <= one <= _HIGHEST for one in pair) else None


def combine(marked: Sequence[Marked]) -> dict[str, float]:
    """Return 100 x mean(model) / mean(reference), over all and by category."""
    groups: dict[str, list[Marks]] = {}
    for one in marked:
        if one.marks is not None and one.score is not None:
            for name in dict.fromkeys(("", one.question.group)):
                groups.setdefault(name, []).append(one.marks)
    return {name: 100 * _sum(marks, "score") / _sum(marks, "reference") for name, marks in groups.items()}


def _sum(marks: Sequence[Marks], name: str) -> float:
    return sum(one[name] or 0.0 for one in marks)


LLAVA_W = Benchmark(title="LLaVA-W", read=read, judge=judge, combine=combine)

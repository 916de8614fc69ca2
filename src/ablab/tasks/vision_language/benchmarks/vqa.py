"""VQAv2 (Goyal et al. 2017), TextVQA (Singh et al. 2019) and VizWiz (Gurari et al. 2018): VQA accuracy.

Each reads its official JSON, LLaVA's question file (JSONL; the official file as `answers`), or the hub. Where a split
withholds the answers the number is missing, and the file for the official server is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from ablab.data.readers.opening import format_suffix
from ablab.data.readers.records import Record, read_json_file, read_records
from ablab.metrics.vqa import normalise, normalise_words, vqa_accuracy
from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Files, Marked, Marks, Question, percentages
from ablab.tasks.vision_language.benchmarks.reading import SHORT, Gallery, questions_of, rows, texts

UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."


def read_vqav2(files: Files) -> Iterator[Question]:
    """Yield VQAv2's questions (v2_OpenEnded_..._questions.json, `answers` = v2_..._annotations.json)."""
    gallery = Gallery(files)
    truth = {}
    if files.answers is not None:
        truth = {one.text("question_id"): one for one in read_records(files.answers, inside="annotations")}
    # The images are named after the part of COCO that the file says it is about.
    part = "" if files.hub or not _official(files) else read_json_file(questions_of(files)).get("data_subtype", "")
    part = {"test-dev2015": "test2015"}.get(part, part)
    for record in rows(files, inside="questions", split="validation"):
        name = record.text("question_id")
        official = truth.get(name, record)
        text = record.text("question", "text").removesuffix(SHORT)
        if record.get("image") is not None:
            images = gallery.of(record, "image")
        else:
            images = gallery.named(f"COCO_{part}_{int(record.need('image_id')):012d}.jpg")
        yield Question(
            id=name,
            prompt=f"{text}{SHORT}",
            question=text,
            images=images,
            answers=texts(official.get("answers")),
            group=str(official.get("answer_type") or ""),
        )


def read_textvqa(files: Files) -> Iterator[Question]:
    """Yield TextVQA's questions (TextVQA_0.5.1_val.json).

    With the option `ocr_tokens` the prompt holds the tokens an OCR system read, as in LLaVA's evaluation (LLaVA's own
    question file has them already): worth about four points, so a number belongs beside numbers of the same kind. The
    official JSON keeps them in another file, named by the option `ocr_file`.
    """
    gallery = Gallery(files)
    truth = {}
    if files.answers is not None:
        for one in read_records(files.answers, inside="data"):
            truth[one.text("image_id"), one.text("question").lower()] = one
    tokens = _ocr_tokens(files)
    for record in rows(files, inside="data", split="validation"):
        if record.get("text") is not None and record.get("question") is None:
            yield _llava_textvqa(record, gallery, truth)
            continue
        text, image = record.text("question"), record.text("image_id")
        read_here = record.get("ocr_tokens") if files.options.get("ocr_tokens") else None
        found = tokens.get(image) if tokens is not None else read_here
        ocr = f"\nReference OCR token: {', '.join(map(str, found))}" if found is not None else ""
        yield Question(
            id=record.text("question_id"),
            prompt=f"{text}{ocr}{SHORT}",
            question=text,
            images=gallery.of(record, "image") or gallery.named(f"{image}.jpg"),
            answers=texts(record.get("answers")),
        )


def _llava_textvqa(record: Record, gallery: Gallery, truth: dict[tuple[str, str], Record]) -> Question:
    prompt, image = record.text("text"), record.text("question_id")
    lines = prompt.split("\n")
    bare = next((line for line in lines if not line.startswith("Reference OCR token:")), prompt)
    official = truth.get((image, bare.lower()))
    if truth and official is None:
        record.refuse(f"no answer to {bare!r} of image {image} in `answers`", "check that the files belong together")
    return Question(
        id=official.text("question_id") if official else f"{image}-{record.row}",
        prompt=prompt,
        question=bare,
        images=gallery.of(record, "image"),
        answers=texts(official.get("answers")) if official else (),
    )


def _ocr_tokens(files: Files) -> dict[str, list[str]] | None:
    name = files.options.get("ocr_file")
    if name is None:
        return None
    path = questions_of(files).parent / str(name)
    return {one.text("image_id"): one.need("ocr_tokens") for one in read_records(path, inside="data")}


def read_vizwiz(files: Files) -> Iterator[Question]:
    """Yield VizWiz's questions (val.json or test.json; the test split has no answers)."""
    gallery = Gallery(files)
    for record in rows(files, split="val"):
        image = record.get("image")
        text = record.text("question", "text")
        bare = text.split(UNANSWERABLE)[0].removesuffix(SHORT)
        yield Question(
            id=record.text("question_id", "image") if isinstance(image, str) else record.text("question_id"),
            prompt=f"{bare}{UNANSWERABLE}{SHORT}",
            question=bare,
            images=gallery.of(record, "image"),
            answers=texts(record.get("answers")),
            group=str(record.get("answer_type") or ""),
            extra={"image": image} if isinstance(image, str) else {},
        )


def _official(files: Files) -> bool:
    return format_suffix(questions_of(files)) == ".json"


def mark_vqav2(question: Question, text: str) -> Marks:
    """Mark by VQA accuracy."""
    return {"score": vqa_accuracy(text, question.answers)}


def mark_words(question: Question, text: str) -> Marks:
    """Mark by VQA accuracy with the normalisation of TextVQA and VizWiz."""
    return {"score": vqa_accuracy(text, question.answers, words=True)}


def submit_vqav2(marked: Sequence[Marked]) -> tuple[str, str]:
    """Return the file of VQAv2's server."""
    return "vqav2_submission.json", json.dumps(
        [{"question_id": int(one.question.id), "answer": normalise(one.text)} for one in marked]
    )


def submit_vizwiz(marked: Sequence[Marked]) -> tuple[str, str]:
    """Return the file of VizWiz's server."""
    rows = [
        {"image": one.question.extra.get("image", f"{one.question.id}.jpg"), "answer": normalise_words(one.text)}
        for one in marked
    ]
    return "vizwiz_submission.json", json.dumps(rows)


VQAV2 = Benchmark(title="VQAv2", read=read_vqav2, mark=mark_vqav2, combine=percentages, submission=submit_vqav2)
TEXTVQA = Benchmark(title="TextVQA", read=read_textvqa, mark=mark_words, combine=percentages)
VIZWIZ = Benchmark(title="VizWiz", read=read_vizwiz, mark=mark_words, combine=percentages, submission=submit_vizwiz)

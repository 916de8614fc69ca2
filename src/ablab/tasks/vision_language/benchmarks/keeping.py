"""Files of an evaluation: answers as they come, official answer files, a record of every question, one CSV row."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ablab.contract.order import Order
from ablab.store.files import write_text
from ablab.store.layout import RunFolder
from ablab.store.lines import append_line, read_lines
from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Marked, Question


class Answers:
    """Answers of one benchmark, saved chunk by chunk in `partial/<key>.jsonl`; a torn last line counts as none.

    A chunk counts only whole: it is generated again otherwise, in the same batches as the first time.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path = folder / "partial" / f"{file_name(key)}.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = read_lines(self._path, problems=[]) if self._path.exists() else ()
        self._known = {str(line["id"]): (str(line["prompt"]), str(line["text"])) for line in lines if "text" in line}

    def __enter__(self) -> Answers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep the file: it goes when the official one is written."""

    def known(self, chunk: Sequence[Question]) -> list[str] | None:
        """Return the saved answers to a chunk, or None unless all of them are there and to the same prompts."""
        found = [self._known.get(question.id) for question in chunk]
        texts = [one[1] for one, question in zip(found, chunk, strict=True) if one and one[0] == question.prompt]
        return texts if len(texts) == len(chunk) else None

    def add(self, chunk: Sequence[Question], texts: Sequence[str]) -> None:
        """Save the answers to a chunk, unless they are saved."""
        for question, text in zip(chunk, texts, strict=True):
            if question.id not in self._known:
                append_line(self._path, {"id": question.id, "prompt": question.prompt, "text": text})
                self._known[question.id] = (question.prompt, text)


def write_answers(folder: Path, key: str, benchmark: Benchmark, marked: Sequence[Marked]) -> None:
    """Write the official answer file, the records, and what the benchmark's server takes, where it has one."""
    name = file_name(key)
    answers = folder / "answers"
    answers.mkdir(exist_ok=True)
    write_text(answers / f"{name}.jsonl", _lines({"question_id": one.question.id, "text": one.text} for one in marked))
    records = folder / "records"
    records.mkdir(exist_ok=True)
    write_text(records / f"{name}.jsonl", _lines(map(record, marked)))
    if benchmark.submission is not None:
        submitted, content = benchmark.submission(marked)
        write_text(answers / submitted, content)
    (folder / "partial" / f"{name}.jsonl").unlink(missing_ok=True)


def record(one: Marked) -> dict[str, Any]:
    """Return what is kept of one question."""
    question = one.question
    values: dict[str, Any] = {"id": question.id, "prompt": question.prompt, "text": one.text}
    values |= {"answers": list(question.answers), "scores": None if one.marks is None else dict(one.marks)}
    if question.group:
        values["group"] = question.group
    return values | {"language": question.language}


def write_row(path: Path, order: Order, metrics: Mapping[str, float]) -> None:
    """Write one CSV row: study, profile, experiment, seed and every metric."""
    values: dict[str, Any] = {"study": order.study, "profile": order.profile, "experiment": order.experiment}
    values |= {"seed": seed_of(order)} | dict(metrics)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(values), lineterminator="\n")
    writer.writeheader()
    writer.writerow(values)
    write_text(path, stream.getvalue())


def seed_of(order: Order) -> int | None:
    """Return the seed of a run, or of the runs it reads: an evaluation itself draws nothing."""
    if order.seed is not None:
        return order.seed
    for given in order.inputs:
        other = RunFolder(given.path).read_order()
        if other is not None and (found := seed_of(other)) is not None:
            return found
    return None


def file_name(text: str) -> str:
    """Return a text as part of a file name."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "one"


def _lines(rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

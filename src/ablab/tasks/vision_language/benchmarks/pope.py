"""POPE (Li et al. 2023): is this object in the image? Three splits that differ in how absent objects are chosen.

Reads the official folder (coco_pope_random.json, coco_pope_popular.json, coco_pope_adversarial.json, JSONL within), one
such file, or the hub. The number of rows of a split is shown: the random one exists with 2,910 and with 3,000.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ablab.data.readers.records import Record
from ablab.metrics.pope import pope_scores, says_yes
from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Files, Marked, Marks, Question
from ablab.tasks.vision_language.benchmarks.reading import SHORT, Gallery, questions_of, read_lines_of, rows

_NAME = "coco_pope_"


def read(files: Files) -> Iterator[Question]:
    """Yield the questions; the group is the split."""
    gallery = Gallery(files)
    if files.hub is not None:
        for record in rows(files):
            yield _question(record, str(record.get("category") or ""), gallery)
        return
    path = questions_of(files)
    parts = sorted(path.glob(f"{_NAME}*.json*")) if path.is_dir() else [path]
    for part in parts:
        split = part.name.split(".")[0].removeprefix(_NAME)
        for record in read_lines_of(part):
            yield _question(record, str(record.get("category") or split), gallery)


def _question(record: Record, split: str, gallery: Gallery) -> Question:
    label = record.text("label", "answer").strip().lower()
    if label not in ("yes", "no"):
        record.refuse(f"its label is {label!r}, expected yes or no")
    text = record.text("text", "question").removesuffix(SHORT).strip()
    return Question(
        id=f"{split}-{record.text('question_id')}",
        prompt=f"{text}{SHORT}",
        question=text,
        images=gallery.of(record, "image"),
        answers=(label,),
        group=split,
    )


def mark(question: Question, text: str) -> Marks:
    """Mark whether the answer is right, and whether it says yes (missing where it is empty)."""
    said = says_yes(text)
    right = question.answers[0] == "yes"
    return {"score": float(said is right), "yes": None if said is None else float(said)}


def combine(marked: Sequence[Marked]) -> dict[str, float]:
    """Return accuracy, precision, recall, f1 and yes_ratio (0 to 1) of each split, and accuracy and f1 as the mean
    over the splits: LLaVA reports the mean f1, TinyLLaVA the accuracy."""
    splits: dict[str, list[tuple[bool | None, bool]]] = {}
    for one in marked:
        said = (one.marks or {}).get("yes")
        pair = (None if said is None else bool(said), one.question.answers[0] == "yes")
        splits.setdefault(one.question.group, []).append(pair)
    found = {split: pope_scores(pairs) for split, pairs in splits.items()}
    numbers = {f"{split}/{name}": value for split, scores in found.items() for name, value in scores.items()}
    for name in ("accuracy", "f1"):
        values = [scores[name] for scores in found.values() if name in scores]
        if len(values) == len(found):
            numbers[name] = sum(values) / len(values)
    return numbers


POPE = Benchmark(title="POPE", read=read, mark=mark, combine=combine, headline="accuracy", percent=100.0)

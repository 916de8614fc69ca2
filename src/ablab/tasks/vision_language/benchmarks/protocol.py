"""What a benchmark is: it reads its official files into questions, and marks answers by its published rule.

How a model answers belongs to the task (`Generate`); what is done around it (chunks, files, tables) to `engine.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from ablab.data.images import ImageSource, decode

if TYPE_CHECKING:
    from PIL.Image import Image

Found = TypeVar("Found")
Language = Literal["en", "ko"]
#: Scores of one answer by name; "score" is the main one, from 0 to 1. None is missing (a failed judgement), never 0.
Marks = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """An image of a question: one of a folder or tar file, or the encoded bytes that a table holds.

    Args:
        name: its name in the source, or what messages call it.
        source: where it lies.
        data: the encoded bytes (JPEG, PNG, ...) where there is no source.
    """

    name: str
    source: ImageSource | None = None
    data: bytes | None = None

    def open(self) -> Image:
        """Return the decoded image in RGB; transparency stands on white.

        Raises:
            DataError: it is missing, or cannot be decoded.
        """
        if self.source is not None:
            return self.source.open(self.name)
        return decode(self.data or b"", name=self.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One question as the model gets it, and what its answer is marked by.

    Args:
        id: official id, unique within the benchmark.
        prompt: text for the model, the benchmark's instruction included; no image token.
        images: its pictures; none for a question of text alone.
        question: the bare question, for the report.
        answers: accepted answers (one, several, or ten of annotators); empty where the split withholds them.
        choices: options in their order, where it is a choice; `answers` then holds the letter.
        group: part that the benchmark reports apart (adversarial, human, a category).
        language: language of the question.
        unit: what is asked or left out as one; the id of the question that its rotations share.
        max_new_tokens: longest answer, where the study says it of this benchmark; the same for all of one call.
        extra: what else its rule needs.
    """

    id: str
    prompt: str
    images: tuple[Picture, ...] = ()
    question: str = ""
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    group: str = ""
    language: Language = "en"
    unit: str = ""
    max_new_tokens: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Marked:
    """A question (its pictures dropped), what the model said, and its marks; None where nothing could be marked."""

    question: Question
    text: str
    marks: Marks | None

    @property
    def score(self) -> float | None:
        """The main mark."""
        return None if self.marks is None else self.marks.get("score")


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """Where the official files of a benchmark lie; every path absolute.

    Args:
        questions: file (or folder) of questions; None where `hub` is given.
        answers: a separate file of answers.
        images: folder or tar file the image names start in; None takes the folder of the questions.
        pictures: False reads the questions alone, to count them.
        hub: data set of the hub, with subset, split and revision.
        options: settings of this benchmark alone, by name.
    """

    questions: Path | None = None
    answers: Path | None = None
    images: Path | None = None
    pictures: bool = True
    hub: str | None = None
    subset: str | None = None
    split: str | None = None
    revision: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class Judge(Protocol):
    """A language model that answers a question about an answer (`ablab.metrics.judging`)."""

    def ask(self, messages: Sequence[Mapping[str, str]], *, read: Callable[[str], Found | None]) -> Found | None:
        """Return what `read` makes of its words, or None when no judgement could be had."""
        ...


#: Answers of a model to questions, in their order, one text each; it raises rather than leave one out.
Generate = Callable[[Sequence[Question]], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark: functions over its questions. `combine` makes the published numbers of the marks.

    Args:
        title: name of its metrics, as the logs write it ("GQA"; details are "GQA/<detail>").
        read: yields the questions of its official files, in their order.
        mark: scores of one answer; None where a judge is needed.
        judge: scores of one answer by a judge.
        combine: numbers by detail from all marked answers; "" is the benchmark's own number.
        headline: the detail that stands for it in tables and averages.
        percent: what the headline is multiplied with to be of 100.
        submission: name and content of the answer file that its official server takes, where there is one.
    """

    title: str
    read: Callable[[Files], Iterator[Question]]
    combine: Callable[[Sequence[Marked]], dict[str, float]]
    mark: Callable[[Question, str], Marks | None] | None = None
    judge: Callable[[Question, str, Judge], Marks | None] | None = None
    headline: str = ""
    percent: float = 1.0
    submission: Callable[[Sequence[Marked]], tuple[str, str]] | None = None

    def metric(self, detail: str) -> str:
        """Return the metric name of a detail."""
        return f"{self.title}/{detail}" if detail else self.title


def mean_score(marked: Sequence[Marked]) -> float | None:
    """Return the mean main mark of those that have one; None where none has."""
    scores = [one.score for one in marked if one.score is not None]
    return sum(scores) / len(scores) if scores else None


def percentages(marked: Sequence[Marked]) -> dict[str, float]:
    """Return 100 x the mean main mark, over all and by group (where there are groups)."""
    groups: dict[str, list[Marked]] = {"": list(marked)}
    for one in marked:
        if one.question.group:
            groups.setdefault(one.question.group, []).append(one)
    found = {name: mean_score(part) for name, part in groups.items()}
    return {name: 100.0 * value for name, value in found.items() if value is not None}

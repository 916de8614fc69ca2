"""Asks a model the questions of benchmarks, keeps every answer, and marks them: the evaluation of a trained model.

The task's evaluate stage calls `evaluate_benchmarks` with a function that answers questions. Answers are saved chunk
by chunk, so that an evaluation that was cut off goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ablab.contract.context import Context
from ablab.contract.failure import ConfigError, DataError, StopRequested
from ablab.contract.result import Evaluation, Example, Outcome, Table
from ablab.metrics.judging import Endpoint
from ablab.tasks.vision_language.benchmarks import keeping
from ablab.tasks.vision_language.benchmarks.averages import averages
from ablab.tasks.vision_language.benchmarks.catalogue import ENTRIES, find_benchmark
from ablab.tasks.vision_language.benchmarks.config import BenchmarkSettings, BenchmarkSource, JudgeSettings
from ablab.tasks.vision_language.benchmarks.lmms_eval import evaluate_with_lmms_eval
from ablab.tasks.vision_language.benchmarks.marking import mark_all
from ablab.tasks.vision_language.benchmarks.protocol import Benchmark, Files, Generate, Judge, Marked, Question

#: Longest side of a picture in the report.
_SHOWN_SIDE = 336


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One benchmark after its evaluation: `questions` it has, `asked` of them; `marked` has every answer to them."""

    key: str
    benchmark: Benchmark
    questions: int
    asked: int
    marked: tuple[Marked, ...]
    numbers: dict[str, float]
    parts: tuple[str, ...] = ()
    marked_by: str = "rule"
    examples: tuple[Example, ...] = ()

    @property
    def headline(self) -> float | None:
        """Its own number, of 100; None where it is missing."""
        value = self.numbers.get(self.benchmark.headline)
        return None if value is None else value * self.benchmark.percent

    @property
    def missing(self) -> int:
        """Questions without a mark."""
        return sum(one.score is None for one in self.marked)


def evaluate_benchmarks(
    generate: Generate, settings: BenchmarkSettings, context: Context, *, study_folder: str | Path | None = None
) -> Outcome:
    """Ask and mark every benchmark of the settings.

    Args:
        generate: the model's answers to questions, in order; called with at most `settings.chunk` at a time.
        settings: what is asked.
        context: the worker.
        study_folder: where relative paths start.

    Returns:
        Metrics by name (a number that could not be had is missing, and a fact says why), artifacts (official answer
        files, records of every question, one CSV row), tables and examples.

    Raises:
        DataError: an official file is missing or damaged.
        ConfigError: the model returned other than one answer a question.
        StopRequested: a stop was asked for; the answers so far are kept.
    """
    judge = open_judge(settings.judge, context.artifacts)
    asked = []
    for key, source in settings.benchmarks.items():
        benchmark = find_benchmark(source.benchmark or key, folder=study_folder)
        if source.benchmark is not None:
            # Two sets of one benchmark are two numbers.
            benchmark = dataclasses.replace(benchmark, title=key)
        files = locate(source, study_folder, context.order.revisions)
        asked.append(ask(key, benchmark, files, source, generate, settings, context, judge))
    made = outcome(asked, context)
    if settings.lmms_eval is not None:
        made = joined(
            made,
            evaluate_with_lmms_eval(generate, settings.lmms_eval, chunk=settings.chunk, study_folder=study_folder),
        )
    if judge is not None and judge.failures:
        return made.model_copy(update={"facts": made.facts | {"judge.failures": dict(judge.failures)}})
    return made


def ask(
    key: str,
    benchmark: Benchmark,
    files: Files,
    source: BenchmarkSource,
    generate: Generate,
    settings: BenchmarkSettings,
    context: Context,
    judge: Judge | None,
) -> Asked:
    """Ask one benchmark and mark the answers."""
    units = units_of(benchmark, files)
    wanted = [units[i] for i in selection(len(units), source.limit)]
    shown = {wanted[i] for i in selection(len(wanted), settings.shown)}
    chosen = set(wanted)
    answered: list[tuple[Question, str]] = []
    examples: list[Example] = []
    with keeping.Answers(context.artifacts, key) as kept:
        asked = (question for question in benchmark.read(files) if (question.unit or question.id) in chosen)
        for chunk in chunks(asked, settings.chunk):
            if context.stop_requested():
                raise StopRequested(f"stopped during {benchmark.title}; {len(answered)} answers are kept")
            longest = [dataclasses.replace(question, max_new_tokens=source.max_new_tokens) for question in chunk]
            texts = kept.known(chunk) or answers_of(generate, longest, benchmark)
            kept.add(chunk, texts)
            for question, text in zip(chunk, texts, strict=True):
                if (question.unit or question.id) in shown:
                    shown.remove(question.unit or question.id)
                    examples.append(example(key, question, text, context))
                answered.append((dataclasses.replace(question, images=()), text))
            context.progress(min(len(answered), len(wanted)), len(wanted), unit=f"questions of {benchmark.title}")
    if not answered:
        raise DataError(f"{benchmark.title}: {files.questions or files.hub} holds no questions; check `split`")
    marked = mark_all(benchmark, answered, judge=judge, parallel=settings.judge.parallel if settings.judge else 1)
    keeping.write_answers(context.artifacts, key, benchmark, marked)
    whole = [one for one in marked if one.marks is not None]
    scored = tuple(_with_score(shown_one, marked) for shown_one in examples)
    return Asked(
        key=key,
        benchmark=benchmark,
        questions=len(units),
        asked=len(wanted),
        marked=marked,
        numbers=benchmark.combine(whole) if whole else {},
        parts=_parts(source.benchmark or key, marked),
        marked_by=_marked_by(benchmark, settings),
        examples=scored,
    )


def _marked_by(benchmark: Benchmark, settings: BenchmarkSettings) -> str:
    """Return what marked the answers: numbers of a judge and of a rule do not compare."""
    if benchmark.judge is not None and settings.judge is not None:
        return f"judge {settings.judge.model}"
    return "rule" if benchmark.mark is not None else "nothing: no judge is set"


def units_of(benchmark: Benchmark, files: Files) -> list[str]:
    """Return what of a benchmark is asked or left out as one: a question, or all rotations of one.

    Raises:
        DataError: two questions have the same id, so that their answers could not be told apart.
    """
    units: dict[str, None] = {}
    seen: set[str] = set()
    for one in benchmark.read(dataclasses.replace(files, pictures=False)):
        if one.id in seen:
            place = files.questions or files.hub
            raise DataError(f"{benchmark.title}: two questions of {place} have the id {one.id!r}", file=str(place))
        seen.add(one.id)
        units[one.unit or one.id] = None
    return list(units)


def answers_of(generate: Generate, chunk: Sequence[Question], benchmark: Benchmark) -> list[str]:
    """Return the model's answers to a chunk; an answer that is no text, or left out, is an error."""
    texts = list(generate(chunk))
    if len(texts) != len(chunk) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{benchmark.title}: {len(chunk)} questions gave {len(texts)} answers; one text each is due")
    return [text.strip() for text in texts]


def selection(total: int, limit: int | None) -> list[int]:
    """Return the places of at most `limit` of `total`, in order: one drawn of each of so many equal stretches.

    Benchmarks alternate (POPE's questions are yes and no in turn): every second place would be all of one kind.
    """
    if limit is None or limit >= total:
        return list(range(total))
    drawn = random.Random(f"{total}/{limit}")
    ends = [i * total // limit for i in range(limit + 1)]
    return [drawn.randrange(low, high) for low, high in itertools.pairwise(ends)]


def chunks(questions: Iterator[Question], size: int) -> Iterator[list[Question]]:
    """Yield lists of at most `size` questions; the pictures of one chunk are in memory at a time."""
    while chunk := list(islice(questions, size)):
        yield chunk


def locate(source: BenchmarkSource, study_folder: str | Path | None, revisions: dict[str, str]) -> Files:
    """Return the absolute places of a benchmark's files."""

    def path(name: str | None) -> Path | None:
        return None if name is None else Path(study_folder or ".", Path(name).expanduser()).absolute()

    return Files(
        questions=path(source.questions),
        answers=path(source.answers),
        images=path(source.images),
        hub=source.hub,
        subset=source.subset,
        split=source.split,
        revision=revisions.get(f"dataset:{source.hub}") if source.hub else None,
        options=dict(source.options),
    )


def open_judge(settings: JudgeSettings | None, folder: Path) -> Endpoint | None:
    """Return the judge of the settings, its judgements cached in a folder; None without settings."""
    if settings is None:
        return None
    return Endpoint(
        url=settings.url,
        model=settings.model,
        token=os.environ.get(settings.token_variable),
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        attempts=settings.attempts,
        timeout=settings.timeout,
        cache=folder / "judgements.jsonl",
    )


def example(key: str, question: Question, text: str, context: Context) -> Example:
    """Return an example for the report, its pictures saved beside it."""
    names = []
    for i, picture in enumerate(question.images):
        image = picture.open()
        image.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
        path = context.artifacts / "pictures" / f"{key}-{keeping.file_name(question.id)}-{i}.png"
        path.parent.mkdir(exist_ok=True)
        image.save(path)
        names.append(path.relative_to(context.folder).as_posix())
    target = " / ".join(dict.fromkeys(question.answers))
    return Example(id=question.id, input=question.prompt, output=text, target=target, images=tuple(names))


def _with_score(shown: Example, marked: Sequence[Marked]) -> Example:
    found = next(one for one in marked if one.question.id == shown.id)
    scores = {name: value for name, value in (found.marks or {}).items() if value is not None}
    return shown.model_copy(update={"scores": scores})


def outcome(asked: Sequence[Asked], context: Context) -> Outcome:
    """Return metrics, facts, tables and files of all benchmarks."""
    metrics = {one.benchmark.metric(detail): value for one in asked for detail, value in one.numbers.items()}
    means, left_out = averages({one.key: (one.headline, one.parts) for one in asked})
    metrics |= means
    facts: dict[str, object] = {}
    for one in asked:
        facts[f"benchmark.{one.key}.questions"] = one.asked
        if one.asked < one.questions:
            facts[f"benchmark.{one.key}.of"] = one.questions
        if one.benchmark.judge is not None:
            facts[f"benchmark.{one.key}.marked_by"] = one.marked_by
        if one.missing:
            facts[f"benchmark.{one.key}.missing"] = one.missing
    for part, reason in left_out.items():
        facts[f"average.{part}.missing"] = reason
    keeping.write_row(context.artifacts / "benchmarks.csv", context.order, metrics)
    artifacts = {path.stem: f"artifacts/{path.name}" for path in (context.artifacts / "benchmarks.csv",)}
    for path in sorted((context.artifacts / "answers").glob("*")) + sorted((context.artifacts / "records").glob("*")):
        artifacts[f"{path.parent.name}.{path.name}"] = path.relative_to(context.folder).as_posix()
    evaluations = (Evaluation(name="benchmarks", tables=(_table(asked),)), *map(_evaluation, asked))
    return Outcome(metrics=metrics, facts=facts, artifacts=artifacts, evaluations=evaluations)


def joined(one: Outcome, other: Outcome) -> Outcome:
    """Return what two evaluations found, as one."""
    return one.model_copy(
        update={
            "metrics": one.metrics | other.metrics,
            "facts": one.facts | other.facts,
            "evaluations": (*one.evaluations, *other.evaluations),
        }
    )


def _parts(name: str, marked: Sequence[Marked]) -> tuple[str, ...]:
    """Return the averages a benchmark enters: the catalogue's, or those of the one language it is in."""
    known = ENTRIES[name].averages if name in ENTRIES else ()
    languages = {one.question.language for one in marked}
    by_language = {frozenset({"ko"}): ("korean",), frozenset({"en"}): ("english",)}
    return known or by_language.get(frozenset(languages), ("overall",))


def _table(asked: Sequence[Asked]) -> Table:
    rows: list[tuple[str, float | None, int, int]] = []
    for one in asked:
        numbers: dict[str, float | None] = {one.benchmark.headline: None, **one.numbers}
        rows += [(one.benchmark.metric(name), value, len(one.marked), one.missing) for name, value in numbers.items()]
    return Table(name="benchmarks", columns=("metric", "value", "questions", "not marked"), rows=tuple(rows))


def _evaluation(one: Asked) -> Evaluation:
    return Evaluation(name=one.benchmark.title, examples=one.examples)

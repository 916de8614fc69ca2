"""Scores of summaries and what is shown of them: tables with intervals, best and worst examples, plots, submission."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablab.contract.registry import find_component, is_file_reference
from ablab.contract.result import Distribution, Evaluation, Example, Series, Table
from ablab.data.dialogues import Dialogue
from ablab.metrics.rouge import ROUGE, CorpusRouge, Scorer, corpus_rouge
from ablab.metrics.text_tokens import Tokenizer, coverage, tokenizer_for
from ablab.tasks.summarization.config import Rouge

#: Names of scores in a metric (percent), by what the corpus calls them.
NAMES = {**{name: name for name in ROUGE}, "competition": "score"}
_BARS, _POINTS = 20, 8


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Summaries of a split with their scores.

    Args:
        metrics: rouge1, rouge2, rougeL, score in percent; length in tokens of the metric; share of empty ones.
        corpus: scores of every row and intervals.
        kept: share of the references' letters that the tokenizer keeps.
    """

    metrics: dict[str, float]
    corpus: CorpusRouge
    kept: float


def score(
    rows: Sequence[Dialogue], outputs: Sequence[str], rouge: Rouge, *, folder: str | None, threads: int
) -> Scored:
    """Score summaries against the references of their rows, which all have some."""
    tokenizer = open_tokenizer(rouge.tokenizer, folder=folder, threads=threads)
    references = [row.summaries for row in rows]
    corpus = corpus_rouge(outputs, references, tokenizer=tokenizer, aggregate=rouge.references, resamples=rouge.samples)
    metrics = {NAMES[name]: percent(name, corpus.means[name].value) for name in NAMES}
    metrics["length"] = float(np.mean([len(tokenizer(text)) for text in outputs])) if outputs else 0.0
    metrics["empty"] = float(np.mean([not text.strip() for text in outputs])) if outputs else 0.0
    for name in rouge.also:
        other = Scorer(references, tokenizer=open_tokenizer(name, folder=folder), aggregate=rouge.references)
        means = other.corpus(outputs, resamples=1).means
        label = Path(name.partition(":")[0]).stem
        metrics |= {f"{NAMES[each]}_{label}": percent(each, means[each].value) for each in NAMES}
    kept = 1.0 - coverage([text for row in rows for text in row.summaries], tokenizer).dropped
    return Scored(metrics=metrics, corpus=corpus, kept=kept)


def percent(name: str, value: float) -> float:
    """Return a score as it is told: in percent; the competition's is already."""
    return value if name == "competition" else 100.0 * value


def open_tokenizer(name: str, *, folder: str | None, threads: int = 1) -> Tokenizer:
    """Return ROUGE's tokenizer: by name, or a function of one's own as file.py:Name."""
    if is_file_reference(name):
        return find_component(name, folder=folder, like=tokenizer)  # type: ignore[no-any-return]
    return tokenizer_for(name, threads=threads)


def tokenizer(text: str) -> list[str]:
    """Stand for the signature of a tokenizer of one's own."""
    raise TypeError("only its signature is used")


def write_predictions(
    folder: Path, rows: Sequence[Dialogue], outputs: Sequence[str], corpus: CorpusRouge | None
) -> dict[str, str]:
    """Write predictions.jsonl, with the scores of every row where there are references; return it by name."""
    lines = []
    for place, (row, output) in enumerate(zip(rows, outputs, strict=True)):
        values: dict[str, object] = {"id": row.id, "prediction": output, "references": list(row.summaries)}
        if row.topic:
            values["topic"] = row.topic
        if corpus is not None:
            values["scores"] = {NAMES[name]: percent(name, value) for name, value in corpus.rows[place].items()}
        lines.append(json.dumps(values, ensure_ascii=False))
    (folder / "predictions.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return {"predictions": f"{folder.name}/predictions.jsonl"}


def write_submission(folder: Path, rows: Sequence[Dialogue], outputs: Sequence[str]) -> dict[str, str]:
    """Write submission.csv (fname, summary), as competitions take it; return it by name."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("fname", "summary"))
    writer.writerows(zip((row.id for row in rows), outputs, strict=True))
    (folder / "submission.csv").write_text(text.getvalue(), encoding="utf-8")
    return {"submission": f"{folder.name}/submission.csv"}


def shown(
    rows: Sequence[Dialogue],
    outputs: Sequence[str],
    scored: Scored | None,
    *,
    name: str,
    examples: int,
    tables: Sequence[Table] = (),
    series: Sequence[Series] = (),
    distributions: Sequence[Distribution] = (),
) -> Evaluation:
    """Return what a report shows of summaries; the worst and the best side by side."""
    if scored is None:
        picked = list(range(min(examples, len(rows))))
        chosen = tuple(_example(rows[i], outputs[i], None, "") for i in picked)
        return Evaluation(name=name, tables=tuple(tables), series=tuple(series), examples=chosen)
    points = [row["competition"] for row in scored.corpus.rows]
    order = sorted(range(len(points)), key=lambda i: (points[i], i))
    worst = order[:examples]
    best = [i for i in reversed(order) if i not in worst][:examples]
    picked_examples = tuple(
        _example(rows[i], outputs[i], scored.corpus.rows[i], label)
        for label, places in (("worst", worst), ("best", best))
        for i in places
    )
    return Evaluation(
        name=name,
        tables=(_table(scored), *tables),
        series=(*_by_length(rows, points), *series),
        distributions=(_histogram("score by dialogue", points, "score"), *distributions),
        examples=picked_examples,
    )


def _example(row: Dialogue, output: str, scores: Mapping[str, float] | None, label: str) -> Example:
    values = {} if scores is None else {NAMES[name]: percent(name, value) for name, value in scores.items()}
    return Example(
        id=f"{label}: {row.id}" if label else row.id,
        input=row.dialogue,
        output=output,
        target="\n".join(row.summaries),
        scores=values,
    )


def _table(scored: Scored) -> Table:
    rows = []
    for name, shown_name in NAMES.items():
        interval = scored.corpus.means[name]
        rows.append((shown_name, *(round(percent(name, v), 3) for v in (interval.value, interval.low, interval.high))))
    return Table(
        name="scores, 95 % bootstrap interval over dialogues",
        columns=("score", "mean", "low", "high"),
        rows=tuple(rows),
    )


def _by_length(rows: Sequence[Dialogue], points: Sequence[float]) -> tuple[Series, ...]:
    """Return the mean score of dialogues by their length, in groups of equal size."""
    lengths = np.array([len(row.dialogue) for row in rows], dtype=float)
    if len(lengths) < 2:
        return ()
    groups = np.array_split(np.argsort(lengths, kind="stable"), min(_POINTS, len(lengths)))
    scores = np.array(points)
    return (
        Series(
            name="score by dialogue length",
            x=tuple(float(lengths[group].mean()) for group in groups),
            y=tuple(float(scores[group].mean()) for group in groups),
            x_label="characters of the dialogue",
            y_label="score",
        ),
    )


def _histogram(name: str, values: Sequence[float], label: str) -> Distribution:
    counts, edges = np.histogram(np.array(values), bins=_BARS)
    return Distribution(name=name, edges=tuple(edges.tolist()), counts=tuple(counts.tolist()), label=label)


def length_histogram(name: str, values: Sequence[int]) -> Distribution:
    """Return a histogram of lengths in tokens."""
    return _histogram(name, [float(value) for value in values], "tokens")

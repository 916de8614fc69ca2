"""The results of a study as a table for a paper: mean and interval over seeds, references in columns of their own.

Arms are grouped by comparison, since only arms of one comparison are meant to be compared; the best of a group is
marked only where `ablab.analysis.leading` supports it. How a table is written down is `table_text`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ablab.analysis.effects import arm_values
from ablab.analysis.intervals import Sample
from ablab.analysis.leading import leader
from ablab.analysis.results import At, Results
from ablab.contract.task import usual_direction
from ablab.report.names import check_metric, comparison_named, experiment_names, split_metric
from ablab.report.references import Reference, References

if TYPE_CHECKING:
    from ablab.study.schema import Comparison, Study

#: Confidence of the intervals where no comparison says another.
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One measured number of one arm.

    Args:
        mean: over seeds.
        low, high: Student interval of the mean; None with one random seed.
        n: values behind it; a constant counts once.
        constant: nothing in it depends on the seed.
        best: better than every other arm of its group, as the paired intervals say.
        values: by seed.
        runs: keys of the runs the values come from.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    constant: bool = False
    best: bool = False
    values: tuple[tuple[int, float], ...] = ()
    runs: tuple[str, ...] = ()

    @property
    def half(self) -> float | None:
        """Half the width of the interval; None where there is none."""
        return None if self.low is None or self.high is None or self.constant else (self.high - self.low) / 2


@dataclass(frozen=True, kw_only=True)
class Column:
    """A metric of the table: its name, which value counts, and which way is better."""

    metric: str
    at: At = "last"
    direction: Literal["lower", "higher"] = "lower"
    unit: str = ""

    @property
    def title(self) -> str:
        """What stands at the head of the column, without the arrow."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.metric}{unit}" + (" (best)" if self.at == "best" else "")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm: an entry (or None) and references for every column."""

    experiment: str
    label: str
    role: str
    entries: tuple[Entry | None, ...]
    references: tuple[tuple[Reference, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """The arms of one comparison; `name` is empty for arms of none."""

    name: str
    question: str
    confidence: float
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """The whole table. `sources` are the distinct sources of the references shown."""

    study: str
    profile: str
    question: str
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    sources: tuple[str, ...] = field(default=())

    def has_references(self, column: int) -> bool:
        """Whether any arm has a reference in a column."""
        return any(row.references[column] for group in self.groups for row in group.rows)

    @property
    def has_labels(self) -> bool:
        """Whether any arm has a label."""
        return any(row.label for group in self.groups for row in group.rows)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield one flat record for every arm and metric that has a number, measured or not."""
        for group in self.groups:
            for row in group.rows:
                for column, entry, references in zip(self.columns, row.entries, row.references, strict=True):
                    if entry is None and not references:
                        continue
                    yield {
                        "comparison": group.name,
                        "experiment": row.experiment,
                        "label": row.label,
                        "role": row.role,
                        "metric": column.metric,
                        "at": column.at,
                        "direction": column.direction,
                        "n": 0 if entry is None else entry.n,
                        "mean": None if entry is None else entry.mean,
                        "low": None if entry is None else entry.low,
                        "high": None if entry is None else entry.high,
                        "confidence": group.confidence,
                        "best": entry is not None and entry.best,
                        "values": {} if entry is None else {str(seed): value for seed, value in entry.values},
                        "runs": [] if entry is None else list(entry.runs),
                        "references": [{"value": r.value, "band": r.band, "source": r.source} for r in references],
                    }


def make_table(
    study: Study,
    results: Results,
    references: References,
    *,
    metrics: Sequence[str] | None = None,
    arms: Sequence[str] | None = None,
    comparisons: Sequence[str] | None = None,
) -> ResultTable:
    """Return the table of a study.

    Args:
        study: the study.
        results: its results.
        references: numbers from elsewhere.
        metrics: names, with @last or @best where wanted; None takes those that comparisons and references ask for.
        arms: names or patterns; with them the table has one group. None groups all arms by comparison.
        comparisons: names of comparisons; None takes all.

    Raises:
        ConfigError: a name that the study does not have.
    """
    columns = _columns(study, results, references, metrics)
    groups = []
    for comparison, names in _grouped(study, arms, comparisons):
        group = _group(study, results, references, columns, comparison, names)
        if group.rows:
            groups.append(group)
    shown = [each for group in groups for row in group.rows for cell in row.references for each in cell]
    return ResultTable(
        study=study.name,
        profile=study.profile,
        question=study.question,
        columns=columns,
        groups=tuple(groups),
        sources=tuple(dict.fromkeys(each.source for each in shown)),
    )


def _columns(
    study: Study, results: Results, references: References, metrics: Sequence[str] | None
) -> tuple[Column, ...]:
    known = results.metrics()
    given = list(dict.fromkeys(name for values in references.values() for name in values))
    if metrics:
        pairs = []
        for text in metrics:
            name, at = split_metric(text)
            pairs.append((check_metric(study, name, known=(*known, *given)), at or "last"))
    else:
        asked = [(split_metric(each.metric)[0], each.at) for each in study.comparisons]
        named = {name for name, _ in asked}
        pairs = [*asked, *((name, "last") for name in given if name not in named)]
        pairs = pairs or [(name, "last") for name in known if not name.startswith("train/")]
    return tuple(_column(study, name, at) for name, at in dict.fromkeys(pairs))


def _column(study: Study, metric: str, at: At) -> Column:
    defined = study.task.metric(metric)
    direction = defined.direction if defined is not None else usual_direction(metric)
    return Column(metric=metric, at=at, direction=direction, unit=defined.unit)


def _grouped(
    study: Study, arms: Sequence[str] | None, comparisons: Sequence[str] | None
) -> Iterator[tuple[Comparison | None, list[str]]]:
    """Yield the groups: the comparisons asked for, or all and then the arms of none, or the arms that were named."""
    if comparisons:
        wanted = set(experiment_names(study, arms))
        for comparison in (comparison_named(study, name) for name in comparisons):
            yield comparison, [name for name in comparison.arms if name in wanted]
    elif arms:
        yield None, experiment_names(study, arms)
    else:
        for comparison in study.comparisons:
            yield comparison, list(dict.fromkeys(comparison.arms))
        compared = {name for comparison in study.comparisons for name in comparison.arms}
        yield None, [name for name in study.experiments if name not in compared]


def _group(
    study: Study,
    results: Results,
    references: References,
    columns: tuple[Column, ...],
    comparison: Comparison | None,
    names: list[str],
) -> Group:
    confidence = CONFIDENCE if comparison is None else comparison.confidence
    best = [leader(results, names, c.metric, at=c.at, direction=c.direction, confidence=confidence) for c in columns]
    first = {c.metric: place for place, c in reversed(list(enumerate(columns)))}
    rows = []
    for name in names:
        entries = tuple(
            _entry(results, name, c, confidence, best=best[place] == name) for place, c in enumerate(columns)
        )
        own = references.get(name, {})
        # A reference does not say at which checkpoint it was taken: it stands once, in the metric's first column.
        beside = tuple(own.get(c.metric, ()) if first[c.metric] == place else () for place, c in enumerate(columns))
        experiment = study.experiments[name]
        if not experiment.planned or any(entries) or any(beside):
            rows.append(
                Row(
                    experiment=name,
                    label=experiment.label,
                    role=_role(comparison, name),
                    entries=entries,
                    references=beside,
                )
            )
    return Group(
        name="" if comparison is None else comparison.name,
        question="" if comparison is None else comparison.question,
        confidence=confidence,
        rows=tuple(rows),
    )


def _role(comparison: Comparison | None, name: str) -> str:
    if comparison is None:
        return ""
    if name == comparison.baseline:
        return "baseline"
    if name in comparison.fail_controls:
        return "control, must fail"
    return "control, must pass" if name in comparison.pass_controls else ""


def _entry(results: Results, name: str, column: Column, confidence: float, *, best: bool) -> Entry | None:
    found = arm_values(results, name, column.metric, column.at)
    if not found.values:
        return None
    numbers = list(found.values.values())
    sample = Sample(values=tuple(numbers[:1] if found.constant else numbers), constant=found.constant)
    interval = sample.interval(confidence)
    return Entry(
        mean=sample.mean,
        low=None if interval is None else interval[0],
        high=None if interval is None else interval[1],
        n=sample.n,
        constant=found.constant,
        best=best,
        values=tuple(found.values.items()),
        runs=found.keys,
    )

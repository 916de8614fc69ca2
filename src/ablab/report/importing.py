"""Takes figures of an older log for references: which column names the experiment, which are metrics, which cells hold
one number. What is left out is said, with the reason; nothing is guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ablab.contract.failure import ConfigError
from ablab.report.names import check_metric, metric_patterns, unknown
from ablab.report.sheets import Sheet
from ablab.store.references import Imported

if TYPE_CHECKING:
    from ablab.study.schema import Study

_NUMBER = re.compile(
    r"[~≈=]?\s*([+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.,/:])(.*)", re.DOTALL
)
#: What may follow a number without changing it: a unit, a spread, a remark in brackets, a mark.
_TAIL = re.compile(
    r"\s*(?:%|nats?|bits?|ppl|pp|pts?|points?|s|ms)?\s*(?:(?:±|\+/-|\+-)\s*\S+\s*%?)?\s*(?:\(.*\)|\[.*\])?\s*[*†‡§¹²³]*\s*"
)
_NOTHING = frozenset({"", "-", "--", "—", "–", "n/a", "na", "nan", "none", "null", "?", "tbd"})


@dataclass(frozen=True, kw_only=True)
class Columns:
    """How the columns of a table are to be read, as the user says.

    Args:
        experiment: column that names the experiment; None finds it.
        metrics: metric by column, for a table with a column a metric.
        metric, value: columns of a table with a row a number.
        renamed: experiment of the study by the name the file gives it.
    """

    experiment: str | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)
    metric: str | None = None
    value: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Left:
    """Something of the file that was not taken, and why; `row` None for a whole column."""

    row: int | None
    what: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Import:
    """What a table gave."""

    entries: tuple[Imported, ...]
    left: tuple[Left, ...]


def take(sheets: Sequence[Sheet], study: Study, columns: Columns, *, table: int | None = None, source: str) -> Import:
    """Return the references that the tables of a file hold for a study.

    Args:
        sheets: tables of the file.
        study: names experiments and metrics.
        columns: how to read them.
        table: number of the table, from 1; None takes the only one that fits.
        source: where the numbers come from.

    Raises:
        ConfigError: no table fits or several do, a name is wrong, or a number is given twice.
    """
    for metric in columns.metrics.values():
        check_metric(study, metric)
    for name in columns.renamed.values():
        if name not in study.experiments:
            raise ConfigError(unknown("experiment", name, study.experiments, of=f"the study {study.name}"))
    sheet = _choose(sheets, study, columns, table)
    place = _experiment_column(sheet, study, columns)
    if place is None:
        raise ConfigError(
            f"no column of the table ({', '.join(sheet.columns)}) names an experiment of the study "
            f"({', '.join(list(study.experiments)[:8])}, ...); say which with --experiment-column, and --rename OLD=NEW"
        )
    if columns.metric is not None or columns.value is not None:
        found = _long(sheet, study, columns, place, source)
    else:
        found = _wide(sheet, study, columns, place, source)
    _refuse_twice(found.entries)
    if not found.entries:
        reasons = "; ".join(dict.fromkeys(f"{left.what}: {left.why}" for left in found.left[:4]))
        raise ConfigError(f"the table holds no number for this study ({reasons or 'it is empty'})")
    return found


def _choose(sheets: Sequence[Sheet], study: Study, columns: Columns, table: int | None) -> Sheet:
    if not sheets:
        raise ConfigError("the file holds no table")
    if table is not None:
        if not 1 <= table <= len(sheets):
            raise ConfigError(f"--table {table}: the file holds {len(sheets)} tables")
        return sheets[table - 1]
    fitting = [n for n, sheet in enumerate(sheets) if _experiment_column(sheet, study, columns) is not None]
    if len(fitting) > 1:
        listed = "; ".join(f"{n + 1}: {sheets[n].title or ', '.join(sheets[n].columns[:4])}" for n in fitting)
        raise ConfigError(f"{len(fitting)} tables of the file name experiments of the study ({listed}); give --table N")
    return sheets[fitting[0] if fitting else 0]


def _experiment_column(sheet: Sheet, study: Study, columns: Columns) -> int | None:
    """Return the place of the column that names experiments: the one asked for, else the one that names most."""
    if columns.experiment is not None:
        return _column(sheet, columns.experiment, "--experiment-column")
    hits = [
        sum(_experiment(cells[place], study, columns) is not None for _, cells in sheet.rows)
        for place in range(len(sheet.columns))
    ]
    most = max(hits, default=0)
    return hits.index(most) if most else None


def _column(sheet: Sheet, name: str, option: str) -> int:
    folded = [column.casefold() for column in sheet.columns]
    if name.casefold() not in folded:
        raise ConfigError(unknown("column", name, sheet.columns, of=f"{option}: the table"))
    return folded.index(name.casefold())


def _experiment(text: str, study: Study, columns: Columns) -> str | None:
    """Return the experiment a cell means: renamed, by its name, or by a label that only one has."""
    text = columns.renamed.get(text, text)
    if text in study.experiments:
        return text
    folded = [name for name in study.experiments if name.casefold() == text.casefold()]
    labelled = [
        name for name, arm in study.experiments.items() if arm.label and arm.label.casefold() == text.casefold()
    ]
    return next((names[0] for names in (folded, labelled) if len(names) == 1), None)


def _wide(sheet: Sheet, study: Study, columns: Columns, place: int, source: str) -> Import:
    """Read a table with one row an experiment and one column a metric."""
    metrics, left = _metric_columns(sheet, study, columns, place)
    entries = []
    for row, cells in sheet.rows:
        experiment = _experiment(cells[place], study, columns)
        if experiment is None:
            left.append(_unknown_row(row, cells[place], study))
            continue
        for column, metric in metrics.items():
            text = cells[column]
            found = one_number(text)
            if isinstance(found, float):
                entries.append(_entry(experiment, metric, found, source, row, text))
            elif found:
                left.append(Left(row=row, what=f"{experiment} {metric}: {text!r}", why=found))
    return Import(entries=tuple(entries), left=tuple(left))


def _metric_columns(sheet: Sheet, study: Study, columns: Columns, place: int) -> tuple[dict[int, str], list[Left]]:
    """Return the metric of each column that has one: as the user says, else where its name is one of the study's."""
    if columns.metrics:
        return {_column(sheet, name, "--metric"): metric for name, metric in columns.metrics.items()}, []
    patterns = metric_patterns(study)
    found, left = {}, []
    for number, name in enumerate(sheet.columns):
        if number == place:
            continue
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            found[number] = name
        else:
            left.append(
                Left(row=None, what=f"column {name!r}", why=f"no metric of the study; --metric '{name}=METRIC'")
            )
    return found, left


def _long(sheet: Sheet, study: Study, columns: Columns, place: int, source: str) -> Import:
    """Read a table with one row a number."""
    metric_place = _column(sheet, columns.metric or "metric", "--metric-column")
    value_place = _column(sheet, columns.value or "value", "--value-column")
    entries, left = [], []
    for row, cells in sheet.rows:
        experiment = _experiment(cells[place], study, columns)
        metric = columns.metrics.get(cells[metric_place], cells[metric_place])
        text = cells[value_place]
        found = one_number(text)
        if experiment is None:
            left.append(_unknown_row(row, cells[place], study))
        elif isinstance(found, float):
            entries.append(_entry(experiment, check_metric(study, metric), found, source, row, text))
        elif found:
            left.append(Left(row=row, what=f"{experiment} {metric}: {text!r}", why=found))
    return Import(entries=tuple(entries), left=tuple(left))


def _entry(experiment: str, metric: str, value: float, source: str, row: int, text: str) -> Imported:
    return Imported(experiment=experiment, metric=metric, value=value, source=source, row=row, text=text)


def _unknown_row(row: int, name: str, study: Study) -> Left:
    return Left(
        row=row, what=repr(name), why=unknown("experiment", name, study.experiments, of=f"the study {study.name}")
    )


def _refuse_twice(entries: Sequence[Imported]) -> None:
    first: dict[tuple[str, str], Imported] = {}
    for entry in entries:
        other = first.setdefault((entry.experiment, entry.metric), entry)
        if other is not entry and other.value != entry.value:
            raise ConfigError(
                f"{entry.experiment} {entry.metric} is {other.value:g} in row {other.row} and {entry.value:g} in row "
                f"{entry.row}: a reference is one number; narrow the table, or import the rows under two sources"
            )


def one_number(text: str) -> float | str:
    """Return the one number a cell holds; "" where it holds none, or the reason why it cannot be told."""
    cell = text.strip().replace("−", "-").replace("\u00a0", " ")
    if cell.casefold() in _NOTHING:
        return ""
    match = _NUMBER.fullmatch(cell)
    if match is None or not any(character.isdigit() for character in match[1]):
        return "no number" if not any(map(str.isdigit, cell)) else "not one number"
    if not _TAIL.fullmatch(match[2]):
        return "not one number"
    value = float(match[1].replace(",", ""))
    return value if math.isfinite(value) else "not finite"


def pasted(entries: Sequence[Imported], source: str) -> str:
    """Return the entries as the `references:` of a study file."""
    import yaml

    block: dict[str, dict[str, float | str]] = {}
    for entry in entries:
        block.setdefault(entry.experiment, {})[entry.metric] = entry.value
    for values in block.values():
        values["source"] = source
    text: str = yaml.safe_dump({"references": block}, allow_unicode=True, sort_keys=False, width=110)
    return text


def lines_left(left: Sequence[Left]) -> Iterator[str]:
    """Yield what was left out, one line each."""
    for item in left:
        where = "" if item.row is None else f"row {item.row}: "
        yield f"left out: {where}{item.what}: {item.why}"

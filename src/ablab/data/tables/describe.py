"""A set of rows described: schema, missing values, candidates, question words, lengths, duplicates."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablab.contract.result import Distribution, Evaluation, Table
from ablab.contract.tables import Fields
from ablab.data.documents import corrupt
from ablab.data.tables.parts import Part, map_parts, parts_of, rows_of
from ablab.data.tables.roles import Roles, find_roles
from ablab.data.tables.scan import tally_part
from ablab.data.tables.tally import MISSING_WAYS, TYPES, Tally, merged

#: Rows looked at to see which fields there are that mean something.
_PEEK = 1000
#: What the hashes of a tally are called in tables.
_HASHED = {
    "rows": "identical rows",
    "ids": "ids",
    "questions": "question and image",
    "passages": "candidate passages",
}


def describe(
    files: Sequence[str | os.PathLike[str]],
    *,
    fields: Fields | None = None,
    processes: int = 1,
    done: Callable[[int], None] | None = None,
) -> Tally:
    """Return the tally of every row of files.

    Args:
        files: JSONL or parquet, one set together.
        fields: what fields mean, where they are not called as in M2KR.
        processes: how many read side by side.
        done: called with the bytes of each part that was read.

    Raises:
        DataError: a file is missing or damaged, or holds no rows; names file and line.
        ConfigError: a field that is named does not occur.
    """
    parts = parts_of(files)
    roles = roles_of(parts, fields or Fields())
    meant = itertools.repeat(roles, len(parts))
    return merged(map_parts(tally_part, parts, meant, processes=processes, done=done), roles)


def roles_of(parts: Sequence[Part], fields: Fields) -> Roles:
    """Return what fields mean, by the first rows of every file."""
    known: dict[str, None] = {}
    firsts = {part.path: part for part in reversed(parts)}
    for part in firsts.values():
        for row, _ in itertools.islice(rows_of(part), _PEEK):
            known |= dict.fromkeys(row)
    if not known:
        corrupt(parts[0].path if parts else "no file", None, "it has no rows", "name files with rows")
    return find_roles(fields, list(known), file=parts[0].path)


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """How often things come again.

    Args:
        values: how many there are in all.
        distinct: how many of them differ.
        most: how often the most frequent one comes.
    """

    values: int
    distinct: int
    most: int

    @property
    def repeated(self) -> int:
        """Values that had come before."""
        return self.values - self.distinct


def repeats(hashes: Any) -> Repeats:
    """Return how often 64-bit hashes come again."""
    values = np.frombuffer(hashes, dtype=np.int64)
    if not len(values):
        return Repeats(values=0, distinct=0, most=0)
    _, counts = np.unique(values, return_counts=True)
    return Repeats(values=len(values), distinct=len(counts), most=int(counts.max()))


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """A length over rows: how many, mean, median, 95th percentile, smallest and largest."""

    count: int
    mean: float
    median: int
    p95: int
    least: int
    most: int


def lengths_of(counts: Mapping[int, int]) -> Lengths:
    """Return the statistics of exact lengths by count; a percentile is the smallest length that reaches it."""
    values = np.array(sorted(counts))
    weights = np.array([counts[int(value)] for value in values])
    reached = np.cumsum(weights) / weights.sum()
    return Lengths(
        count=int(weights.sum()),
        mean=float((values * weights).sum() / weights.sum()),
        median=int(values[np.searchsorted(reached, 0.5)]),
        p95=int(values[np.searchsorted(reached, 0.95)]),
        least=int(values[0]),
        most=int(values[-1]),
    )


def shares(counts: Mapping[str, int], rows: int) -> dict[str, float]:
    """Return counts as shares of the rows."""
    return {name: count / rows if rows else 0.0 for name, count in counts.items()}


def as_json(tally: Tally) -> dict[str, Any]:
    """Return everything that is counted as JSON values; shares are of all rows."""
    fields = {}
    for name, field in sorted(tally.fields.items()):
        fields[name] = {
            "present": field.present,
            "absent": tally.rows - field.present,
            "types": {kind: field.counts[kind] for kind in TYPES if field.counts[kind]},
            "missing": {way: field.counts[way] for way in MISSING_WAYS if field.counts[way]},
            "missing_share": missing_rows(tally, name) / tally.rows if tally.rows else 0.0,
            "entries": field.entries,
            "entries_missing": field.entries_missing,
            "rows_with_missing_entries": field.some_missing,
        }
    return {
        "rows": tally.rows,
        "bytes": tally.size,
        "roles": {name: value for name, value in vars(tally.roles).items() if value},
        "fields": fields,
        "candidates": tally.buckets() if tally.roles.candidates else {},
        "question_words": tally.ranked_words(),
        "sides": {name: tally.sides[name] for name in tally.sides},
        "lengths": {name: vars(lengths_of(counts)) for name, counts in sorted(tally.lengths.items()) if counts},
        "repeats": {_HASHED[name]: vars(repeats(values)) for name, values in tally.hashes.items() if len(values)},
    }


def missing_rows(tally: Tally, name: str) -> int:
    """Return the rows in which a field is absent or missing in any way."""
    field = tally.fields.get(name)
    if field is None:
        return tally.rows
    return tally.rows - field.present + sum(field.counts[way] for way in MISSING_WAYS)


def evaluation(tally: Tally, *, name: str) -> Evaluation:
    """Return tables and distributions for the report."""
    tables = [_schema(tally)]
    if tally.roles.candidates:
        tables.append(_counted("candidates", "passages", tally.buckets(), tally.rows))
    if tally.words:
        tables.append(_counted("question words", "first question word", tally.ranked_words(), tally.rows))
    if any(tally.sides.values()):
        tables.append(_counted("sides", "rows with", dict(tally.sides), tally.rows))
    measured = {what: lengths_of(counts) for what, counts in sorted(tally.lengths.items()) if counts}
    if measured:
        tables.append(
            Table(
                name="lengths",
                columns=("length", "count", "mean", "median", "95th percentile", "least", "most"),
                rows=tuple((what, *vars(found).values()) for what, found in measured.items()),
            )
        )
    tables.append(_repeats(tally))
    return Evaluation(
        name=name,
        tables=tuple(tables),
        distributions=tuple(histogram(counts, name=what) for what, counts in sorted(tally.lengths.items()) if counts),
    )


def _schema(tally: Tally) -> Table:
    rows = []
    for name, field in sorted(tally.fields.items()):
        kinds = ", ".join(kind for kind in TYPES if field.counts[kind]) or "none"
        ways = [field.counts[way] for way in MISSING_WAYS]
        entries = field.entries_missing / field.entries if field.entries else None
        absent = tally.rows - field.present
        rows.append((name, kinds, absent, *ways, missing_rows(tally, name) / tally.rows, entries))
    columns = ("field", "types", "absent", *MISSING_WAYS, "missing, share of rows", "missing, share of entries")
    return Table(name="schema", columns=columns, rows=tuple(rows))


def _counted(name: str, label: str, counts: Mapping[str, int], rows: int) -> Table:
    return Table(
        name=name,
        columns=(label, "rows", "share"),
        rows=tuple((what, count, count / rows if rows else 0.0) for what, count in counts.items()),
    )


def _repeats(tally: Tally) -> Table:
    rows = []
    for name, hashes in tally.hashes.items():
        if len(hashes):
            found = repeats(hashes)
            share = found.repeated / found.values
            rows.append((_HASHED[name], found.values, found.distinct, found.repeated, share, found.most))
    columns = ("of", "values", "distinct", "repeated", "share repeated", "most frequent comes")
    return Table(name="duplicates", columns=columns, rows=tuple(rows))


def histogram(counts: Counter[int], *, name: str, bars: int = 40) -> Distribution:
    """Return exact lengths as a histogram up to the 99.5th percentile; what exceeds it counts in the last bar."""
    values = np.array(sorted(counts))
    weights = np.array([counts[int(value)] for value in values])
    reached = np.cumsum(weights) / weights.sum()
    most = int(values[min(len(values) - 1, int(np.searchsorted(reached, 0.995)))]) + 1
    width = max(1, -(-most // bars))
    edges = np.arange(0, most + width, width)
    found, _ = np.histogram(np.minimum(values, edges[-1] - 1), bins=edges, weights=weights)
    return Distribution(
        name=name, edges=tuple(map(float, edges)), counts=tuple(int(count) for count in found), label=name
    )

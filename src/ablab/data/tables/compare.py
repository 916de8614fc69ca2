"""Two sets of rows beside each other: shares of the same things, their differences, and what both hold."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ablab.contract.result import Evaluation, Table
from ablab.contract.tables import Fields
from ablab.data.tables.describe import as_json, lengths_of, missing_rows, roles_of
from ablab.data.tables.parts import map_parts, parts_of
from ablab.data.tables.scan import tally_part
from ablab.data.tables.tally import Tally, merged

#: What two sets may share, as the tables call it.
_SHARED = {"ids": "ids", "questions": "question and image", "passages": "candidate passages", "rows": "identical rows"}


def compare(
    first: Sequence[str | os.PathLike[str]],
    second: Sequence[str | os.PathLike[str]],
    *,
    fields: Fields | None = None,
    processes: int = 1,
    done: Callable[[int], None] | None = None,
) -> tuple[Tally, Tally]:
    """Return the tallies of two sets, made so that their hashes compare.

    Raises:
        DataError, ConfigError: as `describe`.
    """
    given = [parts_of(first), parts_of(second)]
    roles = [roles_of(parts, fields or Fields()) for parts in given]
    every = [*given[0], *given[1]]
    meant = [roles[0]] * len(given[0]) + [roles[1]] * len(given[1])
    tallies = map_parts(tally_part, every, meant, processes=processes, done=done)
    one = merged(itertools.islice(tallies, len(given[0])), roles[0])
    return one, merged(tallies, roles[1])


def overlap(first: Tally, second: Tally) -> dict[str, dict[str, int]]:
    """Return, for each thing told apart, how many distinct ones each set has and how many are in both."""
    found = {}
    for name, label in _SHARED.items():
        one, other = (np.unique(np.frombuffer(tally.hashes[name], dtype=np.int64)) for tally in (first, second))
        if len(one) or len(other):
            both = len(np.intersect1d(one, other, assume_unique=True))
            found[label] = {"first": len(one), "second": len(other), "both": both}
    return found


def as_comparison(first: Tally, second: Tally, *, names: tuple[str, str]) -> dict[str, Any]:
    """Return the comparison as JSON values."""
    return {
        "names": list(names),
        "rows_ratio": second.rows / first.rows if first.rows else None,
        "first": as_json(first),
        "second": as_json(second),
        "overlap": overlap(first, second),
    }


def evaluation(first: Tally, second: Tally, *, names: tuple[str, str]) -> Evaluation:
    """Return the tables of a comparison; differences are in points (shares of the second minus the first)."""
    one, two = names
    tables = [
        Table(
            name="size",
            columns=("set", "rows", f"share of {one}"),
            rows=((one, first.rows, 1.0), (two, second.rows, second.rows / first.rows if first.rows else None)),
        )
    ]
    if first.roles.candidates and second.roles.candidates:
        tables.append(_beside("candidates", "passages", first.buckets(), second.buckets(), first, second, names))
    if first.words and second.words:
        both = first.words + second.words
        words = {word: first.words[word] for word in sorted(both, key=lambda word: (-both[word], word))}
        theirs = {word: second.words[word] for word in words}
        tables.append(_beside("question words", "first question word", words, theirs, first, second, names))
    fields = sorted({*first.fields, *second.fields})
    tables.append(
        _beside(
            "missing",
            "field",
            {name: missing_rows(first, name) for name in fields},
            {name: missing_rows(second, name) for name in fields},
            first,
            second,
            names,
        )
    )
    tables.append(_entries(first, second, names))
    tables.append(_lengths(first, second, names))
    tables.append(_overlap(first, second, names))
    return Evaluation(name=f"{one} and {two}", tables=tuple(table for table in tables if table.rows))


def _beside(
    name: str,
    label: str,
    ours: Mapping[str, int],
    theirs: Mapping[str, int],
    first: Tally,
    second: Tally,
    names: tuple[str, str],
) -> Table:
    rows = []
    for what in ours:
        one = ours[what] / first.rows if first.rows else 0.0
        two = theirs[what] / second.rows if second.rows else 0.0
        rows.append((what, ours[what], one, theirs[what], two, 100 * (two - one)))
    columns = (label, f"{names[0]}, rows", "share", f"{names[1]}, rows", "share", "difference")
    return Table(name=name, columns=columns, rows=tuple(rows), units={"difference": "points"})


def _entries(first: Tally, second: Tally, names: tuple[str, str]) -> Table:
    """Return the share of missing entries of fields that are lists in either set."""
    rows = []
    for name in sorted({*first.fields, *second.fields}):
        one, two = (_missing_entries(tally, name) for tally in (first, second))
        if one is not None or two is not None:
            rows.append((name, one, two, 100 * (two - one) if one is not None and two is not None else None))
    columns = ("entries of", f"{names[0]}, share missing", f"{names[1]}, share missing", "difference")
    return Table(name="missing entries", columns=columns, rows=tuple(rows), units={"difference": "points"})


def _missing_entries(tally: Tally, name: str) -> float | None:
    field = tally.fields.get(name)
    return field.entries_missing / field.entries if field is not None and field.entries else None


def _lengths(first: Tally, second: Tally, names: tuple[str, str]) -> Table:
    rows = []
    for what in sorted({*first.lengths, *second.lengths}):
        row: list[Any] = [what]
        for tally in (first, second):
            counts = tally.lengths.get(what)
            found = lengths_of(counts) if counts else None
            row += [found.mean, found.median, found.p95] if found is not None else [None, None, None]
        rows.append(tuple(row))
    columns = ("length", *(f"{name}, {what}" for name in names for what in ("mean", "median", "95th percentile")))
    return Table(name="lengths", columns=columns, rows=tuple(rows))


def _overlap(first: Tally, second: Tally, names: tuple[str, str]) -> Table:
    rows = [
        (
            what,
            counts["first"],
            counts["second"],
            counts["both"],
            counts["both"] / counts["second"] if counts["second"] else None,
        )
        for what, counts in overlap(first, second).items()
    ]
    columns = ("distinct", names[0], names[1], "in both", f"share of {names[1]}")
    return Table(name="in both", columns=columns, rows=tuple(rows))

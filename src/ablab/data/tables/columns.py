"""A table of pyarrow counted by column: what `Tally.add` counts over rows, without a Python object for each value.

Only ids, questions and images become Python texts, since they are told apart and looked at; passages' texts and images
stay in pyarrow's buffers. How tables come about, and which rows are the same, is not decided here.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ablab.data.tables.tally import ALL_ENTRIES, EMPTY_LIST, EMPTY_TEXT, NA, NULL, FieldTally, Tally, there
from ablab.data.tables.values import (
    Counts,
    Entries,
    Mask,
    entries_of,
    is_list,
    is_text,
    is_usual,
    missing_of,
    missing_texts,
    nulls_of,
    objects_of,
    plain,
    sums,
)  # fmt: skip

#: Lengths up to this are counted by place.
_SHORT = 1 << 16


class Column:
    """A column of a table, looked at once for all that is counted of it.

    Args:
        array: its values.
        absent: rows that do not have the field, of those in which it is null.
    """

    def __init__(self, array: Any, absent: int = 0) -> None:
        self.array = plain(array)
        self.absent = absent

    @functools.cached_property
    def entries(self) -> Entries:
        """Its entries."""
        return entries_of(self.array, None if is_list(self.array.type) else self.missing)

    @functools.cached_property
    def ways(self) -> tuple[Mask, Mask]:
        """Which texts are blank, and which are "NA"."""
        return missing_texts(self.array)

    @functools.cached_property
    def missing(self) -> Mask:
        """Which values are missing: null, NaN, "NA" or a blank text; a list never is."""
        if is_text(self.array.type):
            return nulls_of(self.array) | self.ways[0] | self.ways[1]
        return missing_of(self.array)

    def there(self) -> list[bool]:
        """Return which values are not missing; a list is there when any of its entries is."""
        if not is_list(self.array.type) and not is_usual(self.array.type):
            return there(self.array.to_pylist())
        found: list[bool] = (self.entries.any() if is_list(self.array.type) else ~self.missing).tolist()
        return found


def columns_of(table: Any, absent: Mapping[str, int]) -> dict[str, Column]:
    """Return the columns of a table by name; `absent` as `add_table` takes it."""
    return {name: Column(table.column(i), absent.get(name, 0)) for i, name in enumerate(table.column_names)}


def add_table(tally: Tally, table: Any, *, rows: int, absent: Mapping[str, int]) -> None:
    """Count a table into a tally: everything but its rows' number, size and hashes.

    Args:
        tally: what it is added to.
        table: a table or record batch.
        rows: how many it has.
        absent: rows that do not have a field, of those in which it is null.
    """
    roles = tally.roles
    columns = columns_of(table, absent)
    for name, column in columns.items():
        tally.fields.setdefault(name, FieldTally()).merge(field_of(column))
    if roles.answers is not None:
        tally.measure("answers", counted(entries_in(columns, roles.answers, rows).lengths))
    asked = [columns.get(name) if name is not None else None for name in (roles.question, roles.image)]
    values = {name: objects_of(columns[name].array) if name in columns else [None] * rows for name in roles.of_queries}
    given = (column.there() if column is not None else [False] * rows for column in asked)
    query = tally.add_queries(values, *given)
    if roles.candidates is not None:
        _add_passages(tally, columns, np.array(query, dtype=np.bool_))


def _add_passages(tally: Tally, columns: Mapping[str, Column], query: Mask) -> None:
    roles, rows = tally.roles, len(query)
    names = (roles.passage_ids, roles.passage_texts, roles.passage_images)
    ids, texts, images = (entries_in(columns, name, rows) for name in names)
    tally.candidates.update(counted(entries_in(columns, roles.candidates, rows).lengths))
    if roles.passage_ids is not None:
        tally.hashes["passages"].extend(map(hash, ids.named()))
    tally.measure("passage, characters", counted(texts.characters()))
    both = any_both(texts, images)
    tally.sides["a passage with text"] += int(texts.any().sum())
    tally.sides["a passage with image"] += int(images.any().sum())
    tally.sides["a passage with both"] += int(both.sum())
    tally.sides["both sides with text and image"] += int((both & query).sum())


def any_both(texts: Entries, images: Entries) -> Mask:
    """Return which rows have a candidate with text and image, which belong together by their place."""
    if not texts.missing.any() and np.array_equal(texts.lengths, images.lengths):
        return images.any()
    if np.array_equal(texts.lengths, images.lengths):
        shared, first, second = texts.lengths, texts.missing, images.missing
    else:
        shared = np.minimum(texts.lengths, images.lengths)
        places = np.arange(int(shared.sum())) - np.repeat(np.cumsum(shared) - shared, shared)
        first, second = (one.missing[np.repeat(one.begins, shared) + places] for one in (texts, images))
    return sums(first | second, np.cumsum(shared) - shared, shared) < shared


def field_of(column: Column) -> FieldTally:
    """Return the tally of one field."""
    from pyarrow import types

    found, array = FieldTally(), column.array
    kind, nulls = array.type, array.null_count
    found.counts[NULL] += nulls - column.absent
    if is_list(kind):
        _add_lists(found, column)
    elif is_text(kind):
        empty, na = (int(way.sum()) for way in column.ways)
        found.counts[EMPTY_TEXT] += empty
        found.counts[NA] += na
        found.counts["text"] += len(array) - nulls - empty - na
    elif types.is_integer(kind) or types.is_floating(kind):
        gone = int(column.missing.sum())
        found.counts[NULL] += gone - nulls
        found.counts["number"] += len(array) - gone
    elif types.is_boolean(kind):
        found.counts["boolean"] += len(array) - nulls
    elif types.is_struct(kind):
        found.counts["object"] += len(array) - nulls
    elif not types.is_null(kind):
        found.counts[NULL] -= nulls - column.absent
        found.add(array.to_pylist())
    return found


def _add_lists(found: FieldTally, column: Column) -> None:
    entries = column.entries
    nonempty = int(np.count_nonzero(entries.lengths))
    found.counts["list"] += nonempty
    found.counts[EMPTY_LIST] += len(column.array) - column.array.null_count - nonempty
    found.entries += len(entries.missing)
    if entries.missing.any():
        gone = entries.gone
        found.entries_missing += int(gone.sum())
        found.some_missing += int(np.count_nonzero(gone))
        found.counts[ALL_ENTRIES] += int(((gone > 0) & (gone == entries.lengths)).sum())


def entries_in(columns: Mapping[str, Column], name: str | None, rows: int) -> Entries:
    """Return the entries of a field, none where no row has it."""
    if name is not None and name in columns:
        return columns[name].entries
    return Entries(values=[], lengths=np.zeros(rows, dtype=np.int64), missing=np.zeros(0, dtype=np.bool_))


def counted(lengths: Counts) -> Counter[int]:
    """Return how often each length comes."""
    if not len(lengths):
        return Counter()
    if lengths.max() < _SHORT:
        counts = np.bincount(lengths)
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(lengths, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))

"""A table of pyarrow counted by column: what `Tally.add` counts over rows, without a Python object for each value.

Only ids, questions and images become Python texts, since they are told apart and looked at; passages' texts and images
stay in pyarrow's buffers. How tables come about, and which rows are the same, is not decided here.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ablab.data.m2kr import MISSING, is_missing
from ablab.data.tables.roles import as_list
from ablab.data.tables.tally import ALL_ENTRIES, EMPTY_LIST, EMPTY_TEXT, NA, NULL, FieldTally, Tally

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
#: First bytes of blanks in UTF-8, as str.isspace has them; some begin other characters too.
BLANKS = (*range(9, 14), *range(28, 33), 0xC2, 0xE1, 0xE2, 0xE3)
_N, _A = b"NA"
_BLANK = 1
#: Lengths up to this are counted by place.
_SHORT = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Entries:
    """The entries of a column: of lists, or scalars that are not missing as lists of one.

    Args:
        values: all of them, an array or a list.
        lengths: how many each row has; shape (rows,).
        missing: which of them are missing; shape (entries,).
    """

    values: Any
    lengths: Counts
    missing: Mask

    @functools.cached_property
    def begins(self) -> Counts:
        """Where the entries of each row begin."""
        return np.cumsum(self.lengths) - self.lengths

    @functools.cached_property
    def gone(self) -> Counts:
        """How many entries of each row are missing."""
        if not self.missing.any():
            return np.zeros(len(self.lengths), dtype=np.int64)
        return sums(self.missing, self.begins, self.lengths)

    def any(self) -> Mask:
        """Return which rows have an entry that is not missing."""
        return self.gone < self.lengths

    def objects(self) -> list[Any]:
        """Return the entries as Python values."""
        return self.values if isinstance(self.values, list) else objects_of(self.values)

    def named(self) -> Iterable[str]:
        """Return the entries as texts, missing ones too."""
        values = self.values
        plain = not isinstance(values, list) and is_text(values.type) and not values.null_count
        return self.objects() if plain else map(str, self.objects())

    def characters(self) -> Counts:
        """Return the lengths of the texts that are not missing."""
        if isinstance(self.values, list) or not is_text(self.values.type):
            texts = [value for value in self.objects() if isinstance(value, str) and not is_missing(value)]
            return np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        import pyarrow.compute as pc

        lengths = np.asarray(pc.utf8_length(self.values).fill_null(0)).astype(np.int64)
        return lengths[~self.missing] if self.missing.any() else lengths


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
            return _nulls(self.array) | self.ways[0] | self.ways[1]
        return _missing(self.array)

    def there(self) -> list[bool]:
        """Return which values are not missing; a list is there when any of its entries is."""
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
    there = [column.there() if column is not None else [False] * rows for column in asked]
    query = tally.add_queries(values, *there)
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


def entries_of(array: Any, missing: Mask | None = None) -> Entries:
    """Return the entries of a column; `missing` says which scalars are, where that is known."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if is_list(array.type):
        lengths = np.asarray(pc.list_value_length(array).fill_null(0)).astype(np.int64)
        values = plain(array.flatten())
        return Entries(values=values, lengths=lengths, missing=_missing(values))
    if not _is_usual(array.type):
        lists = list(map(as_list, array.to_pylist()))
        flat = [value for values in lists for value in values]
        gone = np.fromiter(map(is_missing, flat), dtype=np.bool_, count=len(flat))
        return Entries(values=flat, lengths=np.array(list(map(len, lists)), dtype=np.int64), missing=gone)
    there = ~(_missing(array) if missing is None else missing)
    values = array if there.all() else array.filter(pa.array(there))
    return Entries(values=values, lengths=there.astype(np.int64), missing=np.zeros(len(values), dtype=np.bool_))


def _nulls(array: Any) -> Mask:
    if not array.null_count:
        return np.zeros(len(array), dtype=np.bool_)
    return np.asarray(array.is_null()).astype(np.bool_)


def _missing(array: Any) -> Mask:
    """Return which values are missing: null, NaN, "NA" or a blank text."""
    import pyarrow.compute as pc
    from pyarrow import types

    if is_text(array.type):
        empty, na = missing_texts(array)
        return _nulls(array) | empty | na
    if types.is_floating(array.type):
        return np.asarray(pc.is_null(array, nan_is_null=True)).astype(np.bool_)
    return _nulls(array)


def missing_texts(array: Any) -> tuple[Mask, Mask]:
    """Return which texts are blank and which are "NA", blanks around it or not; nulls are neither.

    The first bytes tell for all but a few, which are looked at in Python.
    """
    offsets, data = spans_of(array)
    begins = offsets[:-1]
    empty = begins == offsets[1:]
    na = np.zeros(len(array), dtype=np.bool_)
    if len(data):
        # What an empty text begins with is of another.
        known = np.flatnonzero(_KINDS.take(data.take(begins, mode="clip")))
        known = known[~empty[known]]
        begin, size = begins[known], offsets[1:][known] - begins[known]
        second, third = (data.take(begin + ahead, mode="clip") for ahead in (1, 2))
        could = (data[begin] == _N) & (size > 1) & (second == _A)
        na[known[could & (size == 2)]] = True
        unclear = np.where(could, (size > 2) & (_KINDS[third] == _BLANK), _KINDS[data[begin]] == _BLANK)
        for place in known[unclear].tolist():
            text = str(array[place]).strip()
            empty[place], na[place] = not text, text in MISSING and bool(text)
    if array.null_count:
        valid = np.asarray(array.is_valid())
        empty, na = empty & valid, na & valid
    return empty, na


def _kinds() -> npt.NDArray[np.uint8]:
    table = np.zeros(256, dtype=np.uint8)
    table[list(BLANKS)] = _BLANK
    table[_N] = _N
    return table


#: By its first byte, whether a text may be a missing one.
_KINDS = _kinds()


def spans_of(array: Any) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
    """Return where texts begin, and the last ends, in the bytes of a column; shapes (texts + 1,) and (bytes,)."""
    from pyarrow import types

    kind = np.int64 if types.is_large_string(array.type) or types.is_large_binary(array.type) else np.int32
    _, offsets, data = array.buffers()
    if not len(array):
        return np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    begins = np.frombuffer(offsets, dtype=kind, count=array.offset + len(array) + 1)[array.offset :]
    return begins, np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, dtype=np.uint8)


def objects_of(array: Any) -> list[Any]:
    """Return a column as Python values."""
    if is_text(array.type):
        # Several times as fast as to_pylist.
        return list(array.to_numpy(zero_copy_only=False).tolist())
    return list(array.to_pylist())


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


def sums(mask: Mask, begins: Counts, lengths: Counts) -> Counts:
    """Return how many entries of a mask are true in each row."""
    before = np.zeros(len(mask) + 1, dtype=np.int64)
    np.cumsum(mask, out=before[1:])
    return np.asarray(before[begins + lengths] - before[begins])


def plain(array: Any) -> Any:
    """Return a column in one piece, without dictionary, its texts as bytes one after another."""
    import pyarrow as pa
    from pyarrow import types

    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    return array


def is_list(kind: Any) -> bool:
    """Whether a type is a list of any kind."""
    from pyarrow import types

    tests: tuple[Callable[[Any], bool], ...] = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def is_text(kind: Any) -> bool:
    """Whether a type is text in bytes one after another."""
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_usual(kind: Any) -> bool:
    """Whether the values of a type are read without making Python objects of them."""
    from pyarrow import types

    tests = (types.is_null, types.is_boolean, types.is_integer, types.is_floating)
    return is_text(kind) or any(test(kind) for test in tests)

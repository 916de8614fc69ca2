"""Values of a pyarrow column looked at without a Python object for each: entries of lists, and which are missing.

Lists are offsets into their entries, texts are offsets into bytes. What is counted of them is decided elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ablab.data.m2kr import MISSING, is_missing
from ablab.data.tables.roles import as_list

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
#: First bytes of blanks in UTF-8, as str.isspace has them; some begin other characters too.
BLANKS = (*range(9, 14), *range(28, 33), 0xC2, 0xE1, 0xE2, 0xE3)
_N, _A = b"NA"
_BLANK = 1


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


def entries_of(array: Any, missing: Mask | None = None) -> Entries:
    """Return the entries of a column; `missing` says which scalars are, where that is known."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if is_list(array.type):
        lengths = np.asarray(pc.list_value_length(array).fill_null(0)).astype(np.int64)
        values = plain(array.flatten())
        return Entries(values=values, lengths=lengths, missing=missing_of(values))
    if not is_usual(array.type):
        lists = list(map(as_list, array.to_pylist()))
        flat = [value for values in lists for value in values]
        gone = np.fromiter(map(is_missing, flat), dtype=np.bool_, count=len(flat))
        return Entries(values=flat, lengths=np.array(list(map(len, lists)), dtype=np.int64), missing=gone)
    there = ~(missing_of(array) if missing is None else missing)
    values = array if there.all() else array.filter(pa.array(there))
    return Entries(values=values, lengths=there.astype(np.int64), missing=np.zeros(len(values), dtype=np.bool_))


def nulls_of(array: Any) -> Mask:
    """Return which values are null."""
    if not array.null_count:
        return np.zeros(len(array), dtype=np.bool_)
    return np.asarray(array.is_null()).astype(np.bool_)


def missing_of(array: Any) -> Mask:
    """Return which values are missing: null, NaN, "NA" or a blank text."""
    import pyarrow.compute as pc
    from pyarrow import types

    if is_text(array.type):
        empty, na = missing_texts(array)
        return nulls_of(array) | empty | na
    if types.is_floating(array.type):
        return np.asarray(pc.is_null(array, nan_is_null=True)).astype(np.bool_)
    return nulls_of(array)


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


def is_usual(kind: Any) -> bool:
    """Whether the values of a type are read without making Python objects of them."""
    from pyarrow import types

    tests = (types.is_null, types.is_boolean, types.is_integer, types.is_floating)
    return is_text(kind) or any(test(kind) for test in tests)

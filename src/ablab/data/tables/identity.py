"""Rows of a parquet table by 64-bit hashes: two rows have the same one where their fields are written the same.

A row is what `repr` of its dictionary would be: fields by place and name, and values with their types. 1, 1.0, True and
"1" are four; a list of nothing is one whatever it could have held, a null is one of any type. Widths of numbers and how
texts are kept do not count. Hashes of texts are Python's: those of processes that hash alike compare.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ablab.data.tables.values import entries_of, is_list, is_text, objects_of, plain, spans_of

Hashes = npt.NDArray[np.uint64]
#: What sets kinds of values apart; a null is 0.
_TEXT, _WHOLE, _REAL, _TRUTH, _LIST, _OTHER = (np.uint64(0x9E3779B97F4A7C15 * odd % 2**64) for odd in range(1, 13, 2))


def row_hashes(batch: Any) -> Hashes:
    """Return the hash of every row of a record batch; shape (rows,)."""
    found = np.zeros(batch.num_rows, dtype=np.uint64)
    for place, name in enumerate(batch.schema.names):
        found += mixed(_values(plain(batch.column(place))) ^ np.uint64(hash((place, name)) % 2**64))
    return found


def mixed(values: Hashes) -> Hashes:
    """Return 64-bit numbers, each spread over all bits (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))


def _values(array: Any) -> Hashes:
    """Return the hash of every value of a column; 0 of null."""
    if is_list(array.type):
        found = _lists(array)
    elif is_text(array.type):
        hashes = np.fromiter(map(hash, objects_of(array)), dtype=np.int64, count=len(array))
        found = mixed(hashes.view(np.uint64) ^ _TEXT)
    else:
        found = _scalars(array)
    return _without_nulls(found, array)


def _without_nulls(found: Hashes, array: Any) -> Hashes:
    return np.where(np.asarray(array.is_valid()), found, np.uint64(0)) if array.null_count else found


def _hashes(data: npt.NDArray[np.uint8], begins: Any, ends: Any) -> Hashes:
    """Return the hashes of parts of bytes."""
    # Views of bytes are hashed without a copy, those of other memory are not hashed at all.
    memory = memoryview(data.tobytes())
    spans = map(slice, begins.tolist(), ends.tolist())
    hashes = np.fromiter((hash(memory[span]) for span in spans), dtype=np.int64, count=len(begins))
    return hashes.view(np.uint64)


def _lists(array: Any) -> Hashes:
    """Return the hashes of lists: of the bytes of their texts in one, and of their entries by place.

    An entry of a list of texts counts by its length, since the bytes are in already; a null counts nothing.
    """
    entries = entries_of(array)
    begins, lengths = entries.begins, entries.lengths
    if is_text(entries.values.type):
        offsets, data = spans_of(entries.values)
        whole = _hashes(data, offsets[begins], offsets[begins + lengths])
        each = _without_nulls(mixed(np.diff(offsets).astype(np.uint64) ^ _TEXT), entries.values)
    else:
        whole, each = np.zeros(len(lengths), dtype=np.uint64), _values(entries.values)
    places = np.arange(len(each), dtype=np.uint64) - np.repeat(begins, lengths).astype(np.uint64)
    # A weight by place, so that the same entries in another order are another list.
    weights = mixed(places + _LIST) | np.uint64(1)
    before = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(each * weights, dtype=np.uint64)])
    summed = before[begins + lengths] - before[begins]
    return mixed(mixed(whole ^ _LIST) + summed + mixed(lengths.astype(np.uint64)))


def _scalars(array: Any) -> Hashes:
    """Return the hashes of values that are neither texts nor lists."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_null(array.type):
        return np.zeros(len(array), dtype=np.uint64)
    if types.is_boolean(array.type):
        return mixed(np.asarray(array.fill_null(False)).astype(np.uint64) ^ _TRUTH)
    if types.is_integer(array.type):
        # Negative ones take the upper half; those above what is signed are told apart by one more step.
        large = types.is_uint64(array.type)
        bits = np.asarray(array.fill_null(0)).astype(np.uint64 if large else np.int64)
        above = bits > np.uint64(2**63 - 1) if large else np.zeros(len(bits), dtype=np.bool_)
        found = mixed(bits.view(np.uint64) ^ _WHOLE)
        return np.where(above, mixed(found), found)
    if types.is_floating(array.type):
        reals = np.asarray(array.cast(pa.float64()).fill_null(0.0)).copy()
        reals[np.isnan(reals)] = np.nan
        return mixed(reals.view(np.uint64) ^ _REAL)
    values = array.to_pylist()
    hashes = np.fromiter((hash(repr(value)) for value in values), dtype=np.int64, count=len(array))
    # A map without entries is a list of nothing.
    nothing = np.fromiter((value == [] for value in values), dtype=np.bool_, count=len(array))
    return np.where(nothing, _lists(pa.array([[]])), mixed(hashes.view(np.uint64) ^ _OTHER))

"""Which rows of a table are kept by a filter and which stratum each belongs to, by column; what is done with them is
decided elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablab.contract.tables import Side
from ablab.data.tables.blocks import Parsed
from ablab.data.tables.columns import Column, columns_of, counted, entries_in
from ablab.data.tables.roles import Roles, bucket_of, question_word
from ablab.data.tables.values import Counts, Entries, Mask, is_text, objects_of, sums


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a filter finds in each row.

    Args:
        lacks: place of the first side that the query lacks, the number of sides where no candidate has what is required
            of it, -1 where the row is kept; shape (rows,).
        candidates: how many there are; shape (rows,).
        kept: how many of them have what is required; None where nothing is.
        good: which of them have, those of all rows that `whole` names one after another.
        whole: rows whose candidates have as many texts and images.
    """

    lacks: Counts
    candidates: Counts
    kept: Counts | None
    good: Mask
    whole: Mask

    def mask(self, row: int) -> Mask:
        """Return which candidates of a row are kept."""
        begin = int(self.candidates[:row][self.whole[:row]].sum())
        return self.good[begin : begin + int(self.candidates[row])]


def select(parsed: Parsed, require: Sequence[Side], roles: Roles) -> Selection:
    """Return what a filter finds in the rows of a block."""
    columns, rows = columns_of(parsed.table, parsed.absent), len(parsed.lines)
    lacks = np.full(rows, -1, dtype=np.int64)
    for place, side in reversed(list(enumerate(require))):
        name = {"question": roles.question, "image": roles.image}.get(side)
        if name is not None:
            lacks[_missing(columns, name, rows)] = place
    nothing = np.zeros(0, dtype=np.bool_)
    counts = entries_in(columns, roles.candidates, rows).lengths
    names = [{"passage-text": roles.passage_texts, "passage-image": roles.passage_images}.get(side) for side in require]
    sides = [entries_in(columns, name, rows) for name in names if name is not None]
    if not sides or roles.candidates is None:
        return Selection(lacks=lacks, candidates=counts, kept=None, good=nothing, whole=nothing)
    whole = np.logical_and.reduce([side.lengths == counts for side in sides])
    good = np.logical_and.reduce([_there(side, whole) for side in sides])
    kept = np.zeros(rows, dtype=np.int64)
    shared = counts[whole]
    kept[whole] = sums(good, np.cumsum(shared) - shared, shared)
    lacks[(lacks < 0) & (kept == 0)] = len(require)
    return Selection(lacks=lacks, candidates=counts, kept=kept, good=good, whole=whole)


def _there(side: Entries, whole: Mask) -> Mask:
    """Return which entries of some rows are not missing, one after another."""
    return ~side.missing if whole.all() else ~side.missing[np.repeat(whole, side.lengths)]


def strata(parsed: Parsed, keys: Sequence[str], roles: Roles) -> list[str]:
    """Return the stratum of every row of a block as a label."""
    columns, rows = columns_of(parsed.table, parsed.absent), len(parsed.lines)
    labels = [_labels(columns, key, roles, rows) for key in keys]
    return labels[0] if len(labels) == 1 else list(map(", ".join, zip(*labels, strict=True)))


def _labels(columns: Mapping[str, Column], key: str, roles: Roles, rows: int) -> list[str]:
    if key == "candidates":
        counts = entries_in(columns, roles.candidates, rows).lengths
        names = {count: bucket_of(count) for count in counted(counts)}
        return [names[count] for count in counts.tolist()]
    if key == "question-word":
        column = columns.get(roles.question or "")
        return list(
            map(question_word, _values(column, rows) if column and is_text(column.array.type) else [None] * rows)
        )
    if key == "image":
        return ["no image" if gone else "image" for gone in _missing(columns, roles.image or "", rows).tolist()]
    values, gone = _values(columns.get(key), rows), _missing(columns, key, rows).tolist()
    return ["missing" if lacking else str(value) for value, lacking in zip(values, gone, strict=True)]


def _values(column: Column | None, rows: int) -> list[Any]:
    return objects_of(column.array) if column is not None else [None] * rows


def _missing(columns: Mapping[str, Column], name: str, rows: int) -> Mask:
    return columns[name].missing if name in columns else np.ones(rows, dtype=np.bool_)

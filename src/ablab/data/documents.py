"""The unit every reader yields: a text and where it came from, so that any later complaint can name file and row."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

from ablab.contract.failure import DataError


class Document(NamedTuple):
    """A text with the file and the row (line of a text or JSONL file, row of a table, both from 1) it starts at."""

    text: str
    file: str
    row: int


def corrupt(
    file: str | os.PathLike[str],
    row: int | None,
    problem: str,
    remedy: str = "mend or remove it",
    *,
    unit: str = "line",
) -> NoReturn:
    """Raise the DataError of a bad piece of data: file and row, what was found, what to do."""
    where = os.fspath(file) if row is None else f"{os.fspath(file)}, {unit} {row}"
    raise DataError(f"{where}: {problem}; {remedy}", file=os.fspath(file), row=row)


def check_text(value: Any, *, file: str, row: int, field: str, unit: str = "line") -> str:
    """Return the text of a row's field.

    Raises:
        DataError: it is missing (None counts as missing), no string, or holds half a surrogate pair.
    """
    if value is None:
        corrupt(file, row, f"the field {field!r} is null", unit=unit)
    if not isinstance(value, str):
        corrupt(file, row, f"the field {field!r} is {type(value).__name__}, expected a string", unit=unit)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            corrupt(file, row, f"character {error.start} of {field!r} is half a surrogate pair, not text", unit=unit)
    return value


def nearest_fields(field: str, fields: Iterable[str]) -> str:
    """Return the part of a message that lists the fields there are, nearest first."""
    import difflib

    known = list(fields)
    near = difflib.get_close_matches(field, known, n=1)
    listed = near + [name for name in known if name not in near]
    return f"it has {', '.join(map(repr, listed[:12]))}" if listed else "it has no fields"


def limited(documents: Iterable[Document], most: int | None) -> Iterator[Document]:
    """Yield the first `most` documents; all of them where it is None."""
    if most is None:
        yield from documents
        return
    left = most
    for document in documents:
        if left <= 0:
            return
        yield document
        left -= 1
        if left == 0:
            return

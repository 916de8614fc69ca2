"""Parquet: one column holds the text; rows are read in batches of one column only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ablab.data.documents import Document, check_text, corrupt, nearest_fields

_ROWS = 1024


def read_parquet(path: str | os.PathLike[str], *, field: str = "text") -> Iterator[Document]:
    """Yield the texts of a parquet file; rows count from 1.

    Raises:
        DataError: the file is missing or damaged, the column is missing or holds no strings, a value is null.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = os.fspath(path)
    if not Path(path).is_file():
        corrupt(name, None, "no such file", "check the path; relative paths start at the study's folder")
    row = 0
    try:
        with pq.ParquetFile(name) as file:
            schema = file.schema_arrow
            if field not in schema.names:
                corrupt(name, None, f"no column {field!r}; {nearest_fields(field, schema.names)}", "set text_field")
            kind = schema.field(field).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
                corrupt(name, None, f"the column {field!r} holds {kind}, expected strings", "set text_field")
            for batch in file.iter_batches(batch_size=_ROWS, columns=[field]):
                try:
                    texts = batch.column(0).to_pylist()
                except UnicodeDecodeError:
                    corrupt(name, row + _first_not_utf8(batch.column(0)), "the text is not UTF-8", unit="row")
                for text in texts:
                    row += 1
                    yield Document(check_text(text, file=name, row=row, field=field, unit="row"), name, row)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        corrupt(name, row + 1 if row else None, f"not a readable parquet file ({reason})", "get it again", unit="row")


def _first_not_utf8(column: Iterable[Any]) -> int:
    """Return which value of a column (from 1) cannot be decoded."""
    for i, value in enumerate(column, 1):
        try:
            value.as_py()
        except UnicodeDecodeError:
            return i
    return 1

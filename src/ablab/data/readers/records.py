"""Rows of many fields, from the formats that data sets are published in: JSON, JSONL, TSV, CSV, parquet, the hub.

A row is a dictionary with the file and row it came from; what its fields mean is the caller's. Images in a table stay
encoded: {"bytes", "path"} in parquet and on the hub, base64 text in TSV.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ablab.contract.failure import DataError
from ablab.data.documents import corrupt, nearest_fields
from ablab.data.readers.opening import format_suffix, open_bytes, read_lines

_ROWS = 64
#: Longest field of a table, in characters: an image in base64.
_LONGEST = 1 << 28


class Record(NamedTuple):
    """A row: its fields, where it came from (rows count from 1), and its key where the file is keyed by it."""

    values: dict[str, Any]
    file: str
    row: int
    key: str = ""

    def get(self, *names: str) -> Any:
        """Return the first of these fields that is there and not null, else None."""
        return next((self.values[name] for name in names if self.values.get(name) is not None), None)

    def need(self, *names: str) -> Any:
        """Return the first of these fields that is there and not null.

        Raises:
            DataError: none of them is; the message lists those there are.
        """
        found = self.get(*names)
        if found is None:
            wanted = " or ".join(map(repr, names))
            corrupt(self.file, self.row, f"no field {wanted}; {nearest_fields(names[0], self.values)}", unit="row")
        return found

    def text(self, *names: str) -> str:
        """Return a needed field as text."""
        return str(self.need(*names))

    def name(self, *names: str) -> str:
        """Return the first of these fields that is there as text, else the row's key or number."""
        found = self.get(*names)
        return str(found) if found is not None else self.key or str(self.row)

    def refuse(self, problem: str, remedy: str = "mend or remove it") -> NoReturn:
        """Raise the DataError of this row."""
        corrupt(self.file, self.row, problem, remedy, unit="row")


def read_records(path: str | os.PathLike[str], *, inside: str | None = None) -> Iterator[Record]:
    """Yield the rows of a file, by its suffix; the files of a folder one after another, in the order of their names.

    Args:
        path: .json (a list of objects, or objects by key), .jsonl, .tsv, .csv, .parquet, or a folder of them.
        inside: member of a JSON object that holds the rows ("data", "annotations").

    Raises:
        DataError: the file is missing or damaged, or of another format.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if format_suffix(file) in _READERS)
        if not files:
            raise DataError(f"{path}: holds no file of {', '.join(_READERS)}", file=str(path))
        for file in files:
            yield from read_records(file, inside=inside)
        return
    suffix = format_suffix(path)
    if suffix == ".json":
        yield from _json(path, inside)
    elif suffix in _READERS:
        yield from _READERS[suffix](path)
    else:
        corrupt(path, None, f"the format {suffix or 'without suffix'} is not read here", f"use {', '.join(_READERS)}")


def read_json_file(path: str | os.PathLike[str]) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataError: it is missing, or no JSON.
    """
    with open_bytes(path) as file:
        try:
            return json.load(file)
        except (ValueError, RecursionError, EOFError, OSError) as error:
            corrupt(path, getattr(error, "lineno", None), f"not JSON ({error})", "get it again")


def hub_records(
    name: str, *, split: str, subset: str | None = None, revision: str | None = None, images: bool = True
) -> Iterator[Record]:
    """Yield the rows of a data set of the hub (or of a local folder in its layout), images undecoded.

    Args:
        name: hub id or folder.
        split: one of its splits.
        subset: its configuration.
        revision: commit.
        images: False leaves the columns of images out, unread.

    Raises:
        DataError: the hub cannot be reached, or knows no such data set or split.
        ConfigError: the `datasets` library is not installed.
    """
    from ablab.data.readers.hub import HubSet

    rows = HubSet(name=name, subset=subset, revision=revision).rows(
        split, images="encoded" if images else "none", batch=_ROWS
    )
    for row, values in rows:
        yield Record(values, f"{name}/{split}", row)


def _json(path: Path, inside: str | None) -> Iterator[Record]:
    content = read_json_file(path)
    if inside is not None and isinstance(content, dict) and inside in content:
        content = content[inside]
    if not isinstance(content, dict | list):
        corrupt(path, None, f"a JSON {type(content).__name__}, expected rows", "check which file it is")
    rows = content.items() if isinstance(content, dict) else (("", one) for one in content)
    for row, (key, values) in enumerate(rows, 1):
        if not isinstance(values, dict):
            corrupt(path, row, f"a JSON {type(values).__name__}, expected an object", unit="row")
        yield Record(values, os.fspath(path), row, str(key))


def read_jsonl(path: Path) -> Iterator[Record]:
    """Yield the rows of a JSONL file, whatever it is called.

    Raises:
        DataError: it is missing, or a line is no JSON object.
    """
    for row, line in read_lines(path):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            corrupt(path, row, f"not JSON ({error})", "mend or remove the line")
        if not isinstance(values, dict):
            corrupt(path, row, f"a JSON {type(values).__name__}, expected an object")
        yield Record(values, os.fspath(path), row)


def _table(path: Path, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(_LONGEST)
    reader = csv.DictReader((line for _, line in read_lines(path)), delimiter=delimiter, strict=False)
    try:
        for row, values in enumerate(reader, 1):
            if None in values or None in values.values():
                columns = len(reader.fieldnames or ())
                corrupt(path, row, f"other than the {columns} columns of the header", "get the file again", unit="row")
            yield Record(dict(values), os.fspath(path), row)
    except csv.Error as error:
        corrupt(path, reader.line_num, f"not a readable table ({error})", "get the file again")


def read_parquet(path: Path, *, batch: int = _ROWS) -> Iterator[Record]:
    """Yield the rows of a parquet file, whatever it is called, this many decoded at once.

    Raises:
        DataError: it is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        corrupt(path, None, "no such file", "check the path; relative paths start at the study's folder")
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            for part in file.iter_batches(batch_size=batch):
                for values in part.to_pylist():
                    row += 1
                    yield Record(values, os.fspath(path), row)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        corrupt(path, row + 1 if row else None, f"not a readable parquet file ({reason})", "get it again", unit="row")


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".json": lambda path: _json(path, None),
    ".jsonl": read_jsonl,
    ".tsv": lambda path: _table(path, "\t"),
    ".csv": lambda path: _table(path, ","),
    ".parquet": read_parquet,
}

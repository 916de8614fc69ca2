"""Counts the rows of data files without reading more of them than that takes."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path

from ablab.contract.failure import DataError

#: Members of a JSON object that hold a file's rows, as published data sets call them.
_INSIDE = ("data", "questions", "annotations", "rows")
#: Longest field of a table, in characters: an image in base64.
_LONGEST = 1 << 28


def count_rows(paths: Iterable[Path]) -> int | None:
    """Return the rows of all files together: lines of JSONL, rows of CSV, TSV and parquet, entries of a JSON list.

    Files of other formats count nothing, and neither does JSON in a folder that holds tables (it describes them).
    None where no file is countable.

    Raises:
        DataError: a file is damaged.
    """
    files = [path for path in paths if path.suffix.lower() in (".jsonl", ".csv", ".tsv", ".parquet", ".json")]
    tables = [path for path in files if path.suffix.lower() != ".json"]
    counts = [_count(path) for path in tables or files]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _count(path: Path) -> int | None:
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return _parquet(path)
        if suffix == ".json":
            return _json(path)
        with path.open(encoding="utf-8", newline="") as file:
            if suffix == ".jsonl":
                return sum(1 for line in file if line.strip())
            csv.field_size_limit(_LONGEST)
            return max(0, sum(1 for _ in csv.reader(file, delimiter="\t" if suffix == ".tsv" else ",")) - 1)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: its rows cannot be counted ({error}); get it again", file=str(path)) from error


def _parquet(path: Path) -> int:
    from pyarrow.parquet import read_metadata

    return int(read_metadata(path).num_rows)


def _json(path: Path) -> int | None:
    content = json.loads(path.read_bytes())
    if isinstance(content, dict):
        inside = next((content[name] for name in _INSIDE if isinstance(content.get(name), list)), None)
        if inside is not None:
            return len(inside)
        keyed = bool(content) and all(isinstance(value, dict) for value in content.values())
        return len(content) if keyed else None
    return len(content) if isinstance(content, list) else None

"""Tables of files that others wrote: CSV, JSON, and the tables of a Markdown log, as rows of text.

Nothing here knows what a column means; which are experiments and metrics is `importing`'s to find out.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ablab.contract.failure import ConfigError, DataError

Format = Literal["csv", "json", "markdown"]
_ENDINGS: dict[str, Format] = {
    ".csv": "csv", ".tsv": "csv", ".txt": "markdown", ".json": "json", ".jsonl": "json", ".md": "markdown",
    ".markdown": "markdown",
}  # fmt: skip
#: A file of figures is small; a larger one is something else, and reading it would fill the memory.
MOST_BYTES = 64 * 2**20
_RULE = re.compile(r"\s*\|?\s*:?-{1,}:?\s*(\|\s*:?-{1,}:?\s*)*\|?\s*")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_FOOTNOTE = re.compile(r"\[\^[^\]]*\]|<sup>.*?</sup>")
_TAG = re.compile(r"</?[a-zA-Z][^>]*>")


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One table of a file.

    Args:
        title: the heading above it, where the format has such.
        columns: their names.
        rows: (line of the file or number of the row, cells as text); short rows are filled up.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]


def read_sheets(path: Path, form: Format | None = None) -> list[Sheet]:
    """Return the tables of a file.

    Args:
        path: the file.
        form: its format; None goes by its ending.

    Raises:
        ConfigError: it is not there, or its ending says no format.
        DataError: it is not what its format says, with the line.
    """
    form = form or _ENDINGS.get(path.suffix.lower())
    if form is None:
        raise ConfigError(f"{path}: its ending says no format; give --format csv, json or markdown")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(
                f"{path} holds {path.stat().st_size:,} bytes; a file of figures has at most {MOST_BYTES:,}"
            )
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(f"{path} is no file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})", file=str(path)) from None
    if form == "csv":
        return _csv_sheets(text, path)
    return _json_sheets(text, path) if form == "json" else list(_markdown_sheets(text))


def _sheet(columns: Sequence[str], rows: Sequence[tuple[int, Sequence[str]]], title: str = "") -> Sheet:
    width = len(columns)
    return Sheet(
        title=title,
        columns=tuple(name.strip() for name in columns),
        rows=tuple((line, tuple([*cells, *[""] * width][:width])) for line, cells in rows),
    )


# --- CSV --------------------------------------------------------------------------------------------------------------


def _csv_sheets(text: str, path: Path) -> list[Sheet]:
    head = text.splitlines()[0] if text.strip() else ""
    delimiter = max("\t;,", key=lambda mark: (head.count(mark), mark == ","))
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((reader.line_num, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}", file=str(path), row=reader.line_num) from None
    return [_sheet(rows[0][1], rows[1:])] if rows else []


# --- JSON -------------------------------------------------------------------------------------------------------------


def _json_sheets(text: str, path: Path) -> list[Sheet]:
    try:
        if path.suffix.lower() == ".jsonl":
            value: Any = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg})", file=str(path)) from None
    return list(_tables_in(value, ""))


def _tables_in(value: Any, title: str) -> Iterator[Sheet]:
    """Yield what in a value is a table: a list of objects, columns with rows, or an object of objects."""
    if isinstance(value, list):
        records = [item for item in value if isinstance(item, Mapping) and "format" not in item]
        if records:
            yield _records(records, title)
        return
    if not isinstance(value, Mapping):
        return
    columns, rows = value.get("columns"), value.get("rows", value.get("data"))
    if isinstance(columns, list) and isinstance(rows, list) and all(isinstance(row, list) for row in rows):
        yield _sheet(list(map(str, columns)), [(n, list(map(_text, row))) for n, row in enumerate(rows, 1)], title)
    elif value and all(isinstance(item, Mapping) for item in value.values()):
        yield _records([{"experiment": name, **item} for name, item in value.items()], title)
    else:
        for name, item in value.items():
            if isinstance(item, Mapping | list):
                yield from _tables_in(item, str(name))


def _records(records: Sequence[Mapping[str, Any]], title: str) -> Sheet:
    flat = [dict(_flat(record)) for record in records]
    columns = list(dict.fromkeys(name for record in flat for name in record))
    return _sheet(columns, [(n, [record.get(c, "") for c in columns]) for n, record in enumerate(flat, 1)], title)


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of nested objects under joined names: {"val": {"loss": 1}} gives val/loss."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else repr(value) if isinstance(value, float) else json.dumps(value)


# --- Markdown ---------------------------------------------------------------------------------------------------------


def _markdown_sheets(text: str) -> Iterator[Sheet]:
    lines = text.splitlines()
    title, place = "", 0
    while place < len(lines):
        line = lines[place]
        if line.startswith("#"):
            title = line.lstrip("#").strip()
        ruled = place + 1 < len(lines) and "-" in lines[place + 1] and _RULE.fullmatch(lines[place + 1])
        if "|" in line and ruled and "|" in lines[place + 1]:
            columns, place = _cells(line), place + 2
            rows = []
            while place < len(lines) and "|" in lines[place] and lines[place].strip():
                rows.append((place + 1, _cells(lines[place])))
                place += 1
            yield _sheet(columns, rows, title)
        else:
            place += 1


def _cells(line: str) -> list[str]:
    """Return the cells of a row of a Markdown table, without marks of emphasis, code, links and footnotes."""
    inner = line.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    return [plain_cell(cell.replace("\\|", "|")) for cell in re.split(r"(?<!\\)\|", inner)]


def plain_cell(text: str) -> str:
    """Return a cell's words alone."""
    text = _TAG.sub("", _FOOTNOTE.sub("", _LINK.sub(r"\1", text)))
    text = re.sub(r"(\*\*|__|`|~~)", "", text)
    text = re.sub(r"(?<!\w)[*_](\S(?:.*?\S)?)[*_](?!\w)", r"\1", text)
    return re.sub(r"\\([\\`*_{}\[\]<>#|~])", r"\1", text).replace("\u00a0", " ").strip()

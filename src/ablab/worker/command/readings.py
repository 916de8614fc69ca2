"""Follows what a program tells about its metrics: lines of its output, JSONL, CSV and JSON files, event files.

Each follower is asked again and again and returns what is new; first, all that an earlier attempt left. A file that
is being written may end within a line, may be written anew from its beginning, or may not be there yet: none of that
is an error.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ablab.contract.command import Metrics
from ablab.contract.patterns import STEP, compile_line, number

#: Bytes by which a file is recognised.
_MARK = 256

#: Names of the step in files, the first that is there.
STEPS = (STEP, "global_step", "iteration", "iter", "epoch")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Metrics at a step; None where the program does not say which."""

    step: int | None
    values: Mapping[str, float]


class Follower(Protocol):
    """Returns what is new since the last call."""

    @property
    def skipped(self) -> int:
        """What could not be read, counted."""
        ...

    def poll(self) -> list[Reading]:
        """Return new readings, oldest first."""
        ...


class Lines:
    """Readings from lines of the output by a template or a regular expression."""

    def __init__(self, source: Metrics) -> None:
        self._source = source
        if source.line is not None:
            self._pattern, self._names = compile_line(source.line)
        else:
            self._pattern = re.compile(source.regex or "")
            index = self._pattern.groupindex
            self._names = tuple(sorted(index, key=lambda name: index[name]))
        self._step = source.step or STEP

    def read(self, line: str) -> Reading | None:
        """Return what a line tells; None where it does not match or holds no number."""
        match = self._pattern.search(line)
        if match is None:
            return None
        groups = match.groups() if self._source.line is not None else [match[name] for name in self._names]
        found = {name: number(text) for name, text in zip(self._names, groups, strict=True) if text is not None}
        step = found.pop(self._step, None)
        values = {self._source.metric(name): value for name, value in found.items() if value is not None}
        return Reading(step=None if step is None else round(step), values=values) if values else None


class Rows:
    """Turns a row of a file into a reading."""

    def __init__(self, source: Metrics) -> None:
        self._source = source

    def read(self, row: Mapping[str, Any]) -> Reading | None:
        """Return the numbers of a row under metric names; nested mappings join their names by /."""
        flat = dict(_numbers(row))
        key = self._source.step or next((name for name in STEPS if name in flat), None)
        step = flat.pop(key, None) if key is not None else None
        values = {self._source.metric(name): value for name, value in flat.items()}
        return Reading(step=None if step is None else round(step), values=values) if values else None


def _numbers(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)
        elif isinstance(value, str) and (found := number(value)) is not None:
            yield f"{prefix}{name}", found


class _Tail:
    """Whole lines that were appended to a text file since the last call.

    A file whose beginning, or whose text before the place read up to, is another than it was has been written anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._head = self._last = b""

    def lines(self) -> tuple[list[str], bool]:
        """Return new whole lines, and whether the file was begun anew."""
        try:
            with self._path.open("rb") as file:
                again = self._is_another(file)
                if again:
                    self._offset, self._head, self._last = 0, b"", b""
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return [], False
        whole, newline, _ = data.rpartition(b"\n")
        read = whole + newline
        self._offset += len(read)
        self._head = (self._head + read)[:_MARK]
        self._last = (self._last + read)[-_MARK:]
        return whole.decode("utf-8", errors="replace").splitlines(), again

    def _is_another(self, file: BinaryIO) -> bool:
        if file.read(len(self._head)) != self._head:
            return True
        file.seek(self._offset - len(self._last))
        return file.read(len(self._last)) != self._last


class _Once:
    """Leaves out what was told already, of a file that is written anew with all it held."""

    def __init__(self) -> None:
        self._told: set[int] = set()

    def new(self, readings: Iterable[Reading | None]) -> list[Reading]:
        """Return the readings that are new."""
        found = []
        for reading in readings:
            if reading is None:
                continue
            mark = hash((reading.step, tuple(sorted(reading.values.items()))))
            if mark not in self._told:
                self._told.add(mark)
                found.append(reading)
        return found


class Jsonl:
    """Rows of a JSONL file."""

    def __init__(self, path: Path, source: Metrics) -> None:
        self._tail, self._rows, self._once = _Tail(path), Rows(source), _Once()
        self.skipped = 0

    def poll(self) -> list[Reading]:
        """Return new rows; lines that are no JSON object are counted and left out."""
        found = []
        for line in self._tail.lines()[0]:
            row = _object(line)
            if row is not None:
                found.append(self._rows.read(row))
            elif line.strip():
                self.skipped += 1
        return self._once.new(found)


def _object(line: str) -> dict[str, Any] | None:
    """Return the JSON object of a line; where a kill tore a line, the one that was appended to its beginning."""
    begin = line.find("{")
    while begin >= 0:
        try:
            row = json.loads(line[begin:])
        except ValueError:
            begin = line.find("{", begin + 1)
            continue
        return row if isinstance(row, dict) else None
    return None


class Csv:
    """Rows of a CSV file whose first line names the columns."""

    def __init__(self, path: Path, source: Metrics) -> None:
        self._tail, self._rows, self._once = _Tail(path), Rows(source), _Once()
        self._header: list[str] | None = None
        self.skipped = 0

    def poll(self) -> list[Reading]:
        """Return new rows; a header that comes again is no row, a file begun anew has a new header."""
        lines, again = self._tail.lines()
        if again:
            self._header = None
        found = []
        for row in csv.reader(lines):
            if self._header is None:
                self._header = row
            elif row and row != self._header:
                found.append(self._rows.read(dict(zip(self._header, row, strict=False))))
        return self._once.new(found)


class Json:
    """A JSON file that is read whole whenever it changes: one row, or the rows under a key."""

    def __init__(self, path: Path, source: Metrics) -> None:
        self._path, self._source, self._rows = path, source, Rows(source)
        self._stamp: tuple[int, int] | None = None
        self._seen: set[str] = set()
        self.skipped = 0

    def poll(self) -> list[Reading]:
        """Return rows that are new; a file that is just being written is read next time."""
        stamp = _stamp(self._path)
        if stamp is None or stamp == self._stamp:
            return []
        rows = self._read()
        if not rows:
            return []
        self._stamp = stamp
        texts = {json.dumps(row, sort_keys=True): row for row in rows}
        new = [row for text, row in texts.items() if text not in self._seen]
        self._seen.update(texts)
        return [reading for reading in map(self._rows.read, new) if reading is not None]

    def _read(self) -> list[Mapping[str, Any]]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        if self._source.records is not None and isinstance(content, dict):
            content = content.get(self._source.records, [])
        rows = content if isinstance(content, list) else [content]
        return [row for row in rows if isinstance(row, dict)]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


class Files:
    """Every file that a pattern means, followed one by one, also those that appear later.

    Args:
        find: returns the files there are now.
        open_file: starts to follow one.
    """

    def __init__(self, find: Callable[[], Iterable[Path]], open_file: Callable[[Path], Follower]) -> None:
        self._find, self._open = find, open_file
        self._open_files: dict[Path, Follower] = {}

    @property
    def skipped(self) -> int:
        """What could not be read."""
        return sum(follower.skipped for follower in self._open_files.values())

    def poll(self) -> list[Reading]:
        """Return what is new in any of the files."""
        for path in self._find():
            if path not in self._open_files:
                self._open_files[path] = self._open(path)
        return [reading for follower in self._open_files.values() for reading in follower.poll()]

"""Files of lines: one JSON object a line, appended whole, a torn last line ignored and mended by the next writer.

A file begins with a header, `{"format": 1}`, which its first writer adds and readers check and leave out. A float
that is not finite is written as `NaN`, `Infinity` or `-Infinity` and reads back as such.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from pydantic_core import PydanticSerializationError, to_json

from ablab.store.faults import CorruptFile, check_format, naming_full_disk

#: First line of a file of lines; a file without one is of format 1.
HEADER = b'{"format":1}\n'
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}


def encode_line(obj: Any) -> bytes:
    """Return an object as one line of JSON; a quarter of the time that the standard encoder takes."""
    try:
        return to_json(obj, inf_nan_mode="constants", fallback=jsonable) + b"\n"
    except PydanticSerializationError:
        # Lone surrogates again; or a type that JSON does not know, which raises its TypeError here.
        return json.dumps(obj, default=jsonable, separators=(",", ":")).encode() + b"\n"


def jsonable(value: Any) -> Any:
    """Turn what JSON does not know into what it does: models, paths, sets, scalars and arrays of numpy or torch."""
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    for method in ("tolist", "isoformat"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")


def append_line(path: str | os.PathLike[str], obj: Any, *, sync: bool = False) -> None:
    """Append one JSON object as a whole line; several processes may append to the same file.

    A torn line that a killed writer left at the end is cut off first.

    Raises:
        DiskFullError: no space is left; nothing was appended.
    """
    line = encode_line(obj)
    handle = open_for_lines(path)
    try:
        with locked(handle):
            end = mend_last_line(handle)
            write_lines(handle, line if end else HEADER + line, end=end, path=path)
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)


def open_for_lines(path: str | os.PathLike[str]) -> int:
    """Open a file of lines for appending, creating it and its folder; return the descriptor."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    with naming_full_disk(path):
        try:
            return os.open(path, flags, 0o666)
        except FileNotFoundError:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, flags, 0o666)


def write_lines(handle: int, data: bytes, *, end: int, path: str | os.PathLike[str]) -> None:
    """Append whole lines by one write to a file that ends at `end`; on failure the file is as before.

    Raises:
        DiskFullError: no space is left.
    """
    with naming_full_disk(path):
        try:
            written = os.write(handle, data)
            if written < len(data):
                # A short write means that the disk is full; the second try brings its error.
                write_all(handle, data[written:])
        except OSError:
            os.ftruncate(handle, end)
            raise


@contextlib.contextmanager
def locked(handle: int) -> Iterator[None]:
    """Hold the exclusive advisory lock of an open file; without effect where the file system knows no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        held = True
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        held = False
    try:
        yield
    finally:
        # Unlocked by name, since a child forked meanwhile shares the lock and would keep it.
        if held:
            fcntl.flock(handle, fcntl.LOCK_UN)


def mend_last_line(handle: int) -> int:
    """Cut a torn last line off a file open for reading and appending, or end it if it is whole; return the size."""
    size = os.fstat(handle).st_size
    if size == 0 or os.pread(handle, 1, size - 1) == b"\n":
        return size
    start, tail = size, b""
    while start and b"\n" not in tail:
        start = max(0, start - 65536)
        tail = os.pread(handle, size - start, start)
    torn = tail.rpartition(b"\n")[2]
    if _parse(torn) is not None:
        write_all(handle, b"\n")
        return size + 1
    os.ftruncate(handle, size - len(torn))
    return size - len(torn)


def read_lines(
    path: str | os.PathLike[str], *, problems: list[str] | None = None, exact: bool = True
) -> list[dict[str, Any]]:
    """Return the JSON objects of a file of lines; a missing file has none, a torn last line is ignored.

    Args:
        path: the file.
        problems: when given, a corrupt line is skipped and described here instead of raising.
        exact: False reads seven times as fast, and a whole number beyond 64 bits as the nearest float.

    Raises:
        CorruptFile: a line that is no JSON object; the message names file and line.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    return parse_lines(data, path, problems=problems, exact=exact)


def parse_lines(
    data: bytes, path: str | os.PathLike[str], *, problems: list[str] | None = None, exact: bool = True
) -> list[dict[str, Any]]:
    """Return the JSON objects of the bytes of a file of lines (see `read_lines`); `path` is for messages."""
    head, _, last = data.rpartition(b"\n")
    found = None if exact else _parse_whole(head)
    if found is None:
        found = _parse_each(head.split(b"\n"), path, problems)
    # An object that parses is complete, even where a person's editor left out the last newline.
    if last and (value := _parse(last)) is not None:
        found.append(value)
    if found and found[0].keys() == {"format"}:
        check_format(found.pop(0), path)
    return found


def _parse_whole(data: bytes) -> list[dict[str, Any]] | None:
    """Return the objects of lines that are all sound, in one go; None where any needs a closer look."""
    try:
        values = orjson.loads(b"[%b]" % data.replace(b"\n", b","))
    except ValueError:
        return None
    lines = data.count(b"\n") + 1 if data else 0
    return values if len(values) == lines and set(map(type, values)) <= {dict} else None


def _parse_each(lines: list[bytes], path: str | os.PathLike[str], problems: list[str] | None) -> list[dict[str, Any]]:
    """Return the objects of lines one by one: numbers that are not finite, and lines that are damaged."""
    found = []
    for row, line in enumerate(lines, 1):
        value = _parse(line)
        if value is not None:
            found.append(value)
        elif line.strip():
            message = f"{path}, line {row}: not a JSON object: {line[:60].decode(errors='replace')!r}"
            if problems is None:
                raise CorruptFile(f"{message}; restore the file or delete the line", file=str(path), row=row)
            problems.append(message)
    return found


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def write_all(handle: int, data: bytes) -> None:
    """Write all of `data` to a file descriptor, however many calls that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]

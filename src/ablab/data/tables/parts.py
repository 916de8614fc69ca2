"""Files cut into parts that processes work through side by side, each in the memory of one row or batch.

A part of a plain JSONL file is a range of bytes; lines belong to the part they begin in. A compressed file is one part,
a parquet file one part for some row groups.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ablab.data.documents import corrupt
from ablab.data.readers.opening import COMPRESSIONS, format_suffix, open_bytes

#: Bytes of a part of a JSONL file, rows of a batch of parquet, row groups of a part.
PART_BYTES, BATCH_ROWS, GROUPS = 32 << 20, 2048, 4
#: Files smaller than this are read in this process.
_ALONE = 16 << 20
#: What a text file may begin with.
BOM = b"\xef\xbb\xbf"
_JSONL = (".jsonl", ".ndjson", ".json")
#: Read by Python when it starts: what texts hash to.
_SEED = "PYTHONHASHSEED"

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a file: bytes [begin, end) of JSONL (end None: to its end), or row groups [begin, end) of parquet."""

    path: str
    begin: int = 0
    end: int | None = None
    bytes: int = 0

    @property
    def parquet(self) -> bool:
        """Whether it is of a parquet file."""
        return format_suffix(self.path) == ".parquet"


def parts_of(files: Sequence[str | os.PathLike[str]], *, size: int | None = None) -> list[Part]:
    """Return the parts of files, in order.

    Raises:
        DataError: a file is missing, or neither JSONL nor parquet.
    """
    found: list[Part] = []
    for file in map(Path, files):
        if not file.is_file():
            problem = "a folder, expected a file" if file.is_dir() else "no such file"
            corrupt(file, None, problem, "name JSONL or parquet files")
        suffix = format_suffix(file)
        if suffix not in (*_JSONL, ".parquet"):
            corrupt(file, None, f"not a JSONL or parquet file ({suffix or 'no suffix'})", "convert it first")
        found += _parquet_parts(file) if suffix == ".parquet" else _line_parts(file, size or PART_BYTES)
    return found


def _line_parts(file: Path, size: int) -> list[Part]:
    whole = file.stat().st_size
    if file.suffix.lower() in COMPRESSIONS:
        return [Part(path=str(file), bytes=whole)]
    return [
        Part(path=str(file), begin=begin, end=min(begin + size, whole), bytes=min(size, whole - begin))
        for begin in range(0, whole, size)
    ]


def _parquet_parts(file: Path) -> list[Part]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            groups = opened.num_row_groups
    except (pa.ArrowInvalid, OSError) as error:
        corrupt(file, None, f"not a readable parquet file ({_first_line(error)})", "get it again")
    whole = file.stat().st_size
    return [
        Part(path=str(file), begin=begin, end=min(begin + GROUPS, groups), bytes=whole * GROUPS // max(groups, GROUPS))
        for begin in range(0, groups, GROUPS)
    ]


def rows_of(part: Part) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield (row, its line) of a part; the line of a parquet row is empty.

    Raises:
        DataError: a line is no JSON object, or the file is damaged; names file and line.
    """
    return _parquet_rows(part) if part.parquet else _line_rows(part)


def _line_rows(part: Part) -> Iterator[tuple[dict[str, Any], bytes]]:
    return rows_of_lines(part, _lines(part))


def rows_of_lines(part: Part, lines: Iterable[bytes], *, number: int = 0) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield (row, its line) of lines of a part, before which it has `number` others; blank lines are left out.

    Raises:
        DataError: a line is no JSON object; names file and line.
    """
    import orjson

    for place, line in enumerate(lines, number):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if not line.strip():
                continue
            corrupt(part.path, _line_number(part, place), f"not JSON ({error})", "mend or remove the line")
        if type(row) is not dict:
            problem = f"a JSON {type(row).__name__}, expected an object"
            corrupt(part.path, _line_number(part, place), problem, "mend or remove the line")
        yield row, line


def _lines(part: Part) -> Iterator[bytes]:
    """Yield the lines that begin in a part."""
    with reading(part) as (file, place):
        for line in file:
            if part.end is not None and place >= part.end:
                return
            yield line.removeprefix(BOM) if place == 0 else line
            place += len(line)


@contextlib.contextmanager
def reading(part: Part) -> Iterator[tuple[BinaryIO, int]]:
    """Open the file of a part at the first line that begins in it; also the place of that line in the file.

    Raises:
        DataError: within it, the compressed stream is damaged.
    """
    import gzip
    import lzma
    import zlib

    with open_bytes(part.path) as file:
        place = part.begin
        if place:
            # The line that the byte before belongs to is the former part's.
            file.seek(place - 1)
            place += len(file.readline()) - 1
        _soon(file, part)
        try:
            yield file, place
        except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
            corrupt(part.path, None, f"the compressed stream is damaged ({error})", "get the file again")


def _soon(file: BinaryIO, part: Part) -> None:
    """Have the system read a part, and what other processes may come to next, while rows are counted."""
    if part.end is not None and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), part.begin, 2 * (part.end - part.begin), os.POSIX_FADV_WILLNEED)


def _line_number(part: Part, number: int) -> int:
    """Return which line of the file the n-th line of a part is, from 1."""
    if not part.begin:
        return number + 1
    with Path(part.path).open("rb") as file:
        before, left = 0, part.begin
        while left and (block := file.read(min(left, 1 << 20))):
            before += block.count(b"\n")
            left -= len(block)
        file.seek(part.begin - 1)
        begins_here = file.read(1) == b"\n"
    return before + (0 if begins_here else 1) + number + 1


def _parquet_rows(part: Part) -> Iterator[tuple[dict[str, Any], bytes]]:
    import pyarrow as pa

    try:
        for batch in batches_of(part):
            for row in batch.to_pylist():
                yield row, b""
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        corrupt(part.path, None, f"damaged parquet ({_first_line(error)})", "get it again")


def batches_of(part: Part) -> Iterator[Any]:
    """Yield the record batches of a part of a parquet file.

    Raises:
        DataError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(part.path) as file:
            groups = list(range(part.begin, part.end or file.num_row_groups))
            yield from file.iter_batches(batch_size=BATCH_ROWS, row_groups=groups, use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        corrupt(part.path, None, f"damaged parquet ({_first_line(error)})", "get it again")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def map_parts(
    work: Callable[..., Answer],
    parts: Sequence[Part],
    *arguments: Iterable[Any],
    processes: int = 1,
    done: Callable[[int], None] | None = None,
) -> Iterator[Answer]:
    """Yield work(part, ...) of every part, in order; no more answers than twice the processes wait.

    Args:
        work: a function of a module; its answer is sent between processes.
        parts: what is worked on.
        *arguments: more arguments, one of each for every part.
        processes: how many at most; small work is done in this one.
        done: called with the bytes of each part that is done.
    """
    calls = list(zip(parts, *arguments, strict=True))
    count = min(processes, len(calls))
    if count < 2 or sum(part.bytes for part in parts) < _ALONE:
        for call in calls:
            yield work(*call)
            if done is not None:
                done(call[0].bytes)
        return
    waiting: deque[tuple[Future[Answer], int]] = deque()
    # Hashes of texts have to agree between the processes; spawned ones read this when they start.
    with _seeded_hashes(), _pool(count) as pool:
        try:
            for call in calls:
                waiting.append((pool.submit(work, *call), call[0].bytes))
                while len(waiting) > 2 * count:
                    yield from _next(waiting, done)
            while waiting:
                yield from _next(waiting, done)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _next(waiting: deque[tuple[Future[Answer], int]], done: Callable[[int], None] | None) -> Iterator[Answer]:
    future, size = waiting.popleft()
    yield future.result()
    if done is not None:
        done(size)


def _pool(count: int) -> ProcessPoolExecutor:
    # Spawned, since a fork of a process that has run threads can hang.
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=_start)


@contextlib.contextmanager
def _seeded_hashes() -> Iterator[None]:
    """Within it, processes that are started hash texts alike."""
    before = os.environ.get(_SEED)
    os.environ[_SEED] = "0"
    try:
        yield
    finally:
        os.environ.pop(_SEED)
        if before is not None:
            os.environ[_SEED] = before


def _start() -> None:
    """Prepare a process: it leaves interrupts to its parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=functools.partial(_end_with, parent.sentinel), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)

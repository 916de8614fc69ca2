"""Blocks of JSON lines as pyarrow tables, where pyarrow certainly reads them as orjson does, row by row.

pyarrow takes two objects on a line, an object over two lines, NaN and a byte that is no UTF-8; it reads dates as times,
large numbers inexactly, and tells an absent field from null no more. Each of these is seen here, and the block refused:
whoever asked reads its rows one by one, which also says what is wrong with them. How rows are counted is not decided
here.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ablab.data.tables.parts import BOM, Part, reading

#: Bytes of a block.
BLOCK_BYTES = 4 << 20
#: More than this in one line is left to the rows: pyarrow counts the bytes of a text column in 31 bits.
_MOST = 1 << 30
#: Bytes from which the types of fields are learnt.
_FEW = 1 << 16
_BRACE = (ord("{"), ord("}"))
#: A letter, digit or underscore written as an escape, by which a field's name could be written otherwise.
_ESCAPED = re.compile(rb"\\u00(?:3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF])")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True, kw_only=True)
class Block:
    """Whole lines of a file.

    Args:
        data: their bytes.
        number: lines of the part before them.
    """

    data: bytes
    number: int

    @functools.cached_property
    def lines(self) -> list[bytes]:
        """The lines with their ends."""
        return io.BytesIO(self.data).readlines()


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """A block as a table.

    Args:
        table: its rows, each column in one piece.
        lines: the lines of the rows, those of blanks left out.
        absent: rows that do not have a field, of the fields that some do not have.
    """

    table: Any
    lines: list[bytes]
    absent: dict[str, int]


def blocks_of(part: Part, *, size: int | None = None) -> Iterator[Block]:
    """Yield the lines that begin in a part, a block at a time.

    Raises:
        DataError: the compressed stream is damaged.
    """
    number, size = 0, size or BLOCK_BYTES
    with reading(part) as (file, place):
        while part.end is None or place < part.end:
            most = size if part.end is None else min(size, part.end - place)
            data = _whole_lines(file, place, most) if part.end is not None else _next_lines(file, most)
            if not data:
                return
            block = Block(data=data.removeprefix(BOM) if place == 0 else data, number=number)
            place += len(data)
            yield block
            number += len(block.lines)


def _whole_lines(file: BinaryIO, place: int, size: int) -> bytes:
    """Read so many bytes and the rest of the line, once its length is known, so that nothing is copied."""
    file.seek(place + size - 1)
    size += len(file.readline()) - 1
    file.seek(place)
    return file.read(size)


def _next_lines(file: BinaryIO, size: int) -> bytes:
    """Read so many bytes and the rest of the line from where a file cannot go back."""
    data = file.read(size)
    return data if data.endswith(b"\n") else data + file.readline()


@dataclass(kw_only=True)
class Parser:
    """Parses the blocks of a part.

    Args:
        exact: fields whose values are told apart as they are written.
        types: of fields that pyarrow is told.
    """

    exact: Collection[str] = ()
    types: dict[str, Any] = field(default_factory=dict)

    def parse(self, block: Block) -> Parsed | None:
        """Return a block as a table; None where its rows have to be read one by one."""
        import pyarrow as pa

        lines = _objects(block)
        if not lines or not _is_text(block.data):
            return None
        try:
            table = self._table(block.data)
        except (pa.ArrowException, UnicodeDecodeError):
            return None
        if table is None or table.num_rows != len(lines):
            return None
        if not all(_same(_piece(table[name]), exact=name in self.exact) for name in table.column_names):
            return None
        absent: dict[str, int] = {}
        for name in table.column_names:
            if table[name].null_count:
                count = _absent(name, _piece(table[name]), lines, table.column_names)
                if count is None:
                    return None
                absent[name] = count
        nowhere = [name for name, count in absent.items() if count == len(lines)]
        return Parsed(table=table.drop_columns(nowhere), lines=lines, absent=absent)

    def _table(self, data: bytes) -> Any:
        """Return what pyarrow makes of lines; None where it is not to be trusted.

        Left alone, it takes texts for times where all look like it, and makes broken arrays of lists that begin with
        nulls: it is told the types of such fields. Arrays of objects after nulls are broken, too.
        """
        from pyarrow import types

        if not self.types:
            # Few lines tell the types of most fields.
            self._learn(self._read(data[: data.find(b"\n", _FEW) + 1] or data))
        table = self._read(data)
        if self._learn(table):
            table = self._read(data)
        if any(types.is_nested(_kind(column.type)) for column in table.schema):
            return None
        return table.combine_chunks()

    def _learn(self, table: Any) -> bool:
        """Take in the types of fields that are read well only when they are known; whether there are new ones."""
        import pyarrow as pa
        from pyarrow import types

        found = {}
        for column in table.schema:
            kind, many = _kind(column.type), _is_list(column.type)
            if types.is_temporal(kind) or (many and types.is_null(kind)):
                kind = pa.string()
            elif not many or types.is_nested(kind):
                continue
            found[column.name] = pa.list_(kind) if many else kind
        new = found.items() - self.types.items()
        self.types |= found
        return bool(new)

    def _read(self, data: bytes) -> Any:
        import pyarrow as pa
        from pyarrow import json

        return json.read_json(
            pa.BufferReader(data),
            read_options=json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=json.ParseOptions(explicit_schema=pa.schema(self.types), newlines_in_values=False),
        )


def _objects(block: Block) -> list[bytes] | None:
    """Return the lines that are not blank; None where one does not begin and end like an object.

    Where all do, a line's end is the end of a row: within an object or list "}" and "{" do not follow each other, and a
    text does not run over lines. So each line has a row at least, and one that has two makes one row too many. (Of a
    null that is no row's, pyarrow makes a row; where it comes first of all, it crashes.)
    """
    import numpy as np

    data = block.data
    if not data or len(data) > _MOST:
        return None
    lines = block.lines
    codes = np.frombuffer(data, dtype=np.uint8)
    sizes = np.fromiter(map(len, lines), dtype=np.int64, count=len(lines))
    ends = np.cumsum(sizes)
    last = ends - 2
    last[-1] += not data.endswith(b"\n")
    first = codes[ends - sizes]
    if not ((first == _BRACE[0]).all() and (codes[np.maximum(last, 0)] == _BRACE[1]).all()):
        lines = [line for line in lines if line.strip()]
        stripped = map(bytes.strip, lines)
        # What comes first in pyarrow's eyes must be an object.
        if not all(line.startswith(b"{") and line.endswith(b"}") for line in stripped):
            return None
    return lines


def _is_text(data: bytes) -> bool:
    """Whether bytes are UTF-8."""
    import pyarrow as pa

    if data.isascii():
        return True
    offsets = pa.py_buffer(b"\0" * 8 + len(data).to_bytes(8, "little"))
    try:
        pa.LargeStringArray.from_buffers(1, offsets.slice(0), pa.py_buffer(data)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _piece(column: Any) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind))


def _kind(given: Any) -> Any:
    """Return a type, or that of the entries of a list."""
    return given.value_type if _is_list(given) else given


def _same(array: Any, *, exact: bool) -> bool:
    """Whether values are what orjson would make of them: texts, whole numbers, finite ones, booleans or nothing.

    A column of whole and other numbers, or of large ones, has them all as 64-bit floats: not as they are written.
    """
    import pyarrow.compute as pc
    from pyarrow import types

    array.validate()
    kind = _kind(array.type)
    if types.is_floating(kind):
        values = array.flatten() if _is_list(array.type) else array
        return not exact and bool(pc.all(pc.is_finite(values), skip_nulls=True, min_count=0).as_py())
    return any(test(kind) for test in (types.is_string, types.is_int64, types.is_boolean, types.is_null))


def _absent(name: str, array: Any, lines: list[bytes], names: list[str]) -> int | None:
    """Return how many rows lack a field, of those in which it is absent or null; None where that cannot be said.

    A quote within a text is escaped, so that the bytes "name": are a field's name, unless a name holds a quote; a row
    has it once at most, since pyarrow refuses a field that comes twice, and there are no objects within objects.
    """
    import numpy as np

    if not _PLAIN_NAME.fullmatch(name) or any('"' in other for other in names):
        return None
    quoted, count = b'"' + name.encode() + b'"', 0
    written = quoted + b":"
    for place in np.flatnonzero(np.asarray(array.is_null())).tolist():
        line = lines[place]
        if written in line:
            continue
        if quoted in line and re.search(quoted + rb"[ \t\r]*:", line):
            continue
        if b"\\u00" in line and _ESCAPED.search(line):
            return None
        count += 1
    return count

"""Plain text: a document is the whole file, a chapter, a paragraph or a line.

- file: the whole file.
- chapters: a heading line ("CHAPTER IV", "Volume 2", "LETTER 7.") starts a document, heading included. A piece of
  fewer than 200 characters (a title page, the line "VOLUME II" before its first chapter) joins what follows.
- paragraphs: blank lines separate documents.
- lines: every line is a document.

Blank lines around a document are left out and documents without text are skipped; nothing else is changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Literal

from ablab.data.documents import Document
from ablab.data.readers.opening import read_lines

Rule = Literal["file", "chapters", "paragraphs", "lines"]
Line = tuple[int, str]

_HEADING = re.compile(r"\s*(?:chapter|volume|book|part|letter)\s+(?:[ivxlc]+|\d+)\.?\s*", re.IGNORECASE)
_SHORT = 200


def read_text(path: str | os.PathLike[str], *, documents: Rule = "file") -> Iterator[Document]:
    """Yield the documents of a UTF-8 text file (module docstring).

    Raises:
        DataError: the file is missing or a line is not UTF-8.
    """
    for lines in _RULES[documents](read_lines(path)):
        filled = [row for row, line in lines if line.strip()]
        if filled:
            text = "".join(line for row, line in lines if filled[0] <= row <= filled[-1])
            yield Document(text.rstrip("\r\n"), os.fspath(path), filled[0])


def _whole(lines: Iterator[Line]) -> Iterator[list[Line]]:
    yield list(lines)


def _single(lines: Iterator[Line]) -> Iterator[list[Line]]:
    for line in lines:
        yield [line]


def _paragraphs(lines: Iterator[Line]) -> Iterator[list[Line]]:
    block: list[Line] = []
    for row, line in lines:
        if line.strip():
            block.append((row, line))
        elif block:
            yield block
            block = []
    yield block


def _chapters(lines: Iterator[Line]) -> Iterator[list[Line]]:
    block: list[Line] = []
    size = 0
    for row, line in lines:
        if size >= _SHORT and _HEADING.fullmatch(line):
            yield block
            block, size = [], 0
        block.append((row, line))
        size += len(line.strip())
    yield block


_RULES: dict[Rule, Callable[[Iterator[Line]], Iterator[list[Line]]]] = {
    "file": _whole,
    "chapters": _chapters,
    "paragraphs": _paragraphs,
    "lines": _single,
}

"""Open a file for reading, whatever it is compressed with, and yield its lines as text with their numbers."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from ablab.data.documents import corrupt

COMPRESSIONS = (".gz", ".xz", ".bz2")


def format_suffix(path: str | os.PathLike[str]) -> str:
    """Return the suffix that says the format, in lower case, a compression suffix left out ("a.jsonl.gz": ".jsonl")."""
    path = Path(path)
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSIONS else suffix


def open_bytes(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a plain, gzip, xz or bzip2 file for reading bytes.

    Raises:
        DataError: there is no such file, or it is a folder or not readable.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".gz":
            return cast(BinaryIO, gzip.open(path, "rb"))
        if suffix == ".xz":
            return cast(BinaryIO, lzma.open(path, "rb"))
        if suffix == ".bz2":
            return cast(BinaryIO, bz2.open(path, "rb"))
        return path.open("rb")
    except FileNotFoundError:
        corrupt(path, None, "no such file", "check the path; relative paths start at the study's folder")
    except IsADirectoryError:
        corrupt(path, None, "a folder, expected a file", "name its files")
    except PermissionError:
        corrupt(path, None, "no permission to read it", "change its permissions")


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line with its line end) of a UTF-8 text file; a byte-order mark is left out.

    Only "\\n" ends a line, so the lines joined are the file.

    Raises:
        DataError: the file is missing, a line is not UTF-8, or the compressed stream is cut.
    """
    row = 0
    with open_bytes(path) as file:
        try:
            for row, line in enumerate(file, 1):
                if row == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                try:
                    yield row, line.decode()
                except UnicodeDecodeError as error:
                    corrupt(
                        path,
                        row,
                        f"byte 0x{line[error.start]:02x} at position {error.start + 1} is not UTF-8",
                        "convert the file to UTF-8 or remove the line",
                    )
        except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
            corrupt(path, row + 1, f"the compressed stream is damaged ({error})", "get the file again")
        except OSError as error:
            if not isinstance(error, gzip.BadGzipFile) and Path(path).suffix.lower() != ".bz2":
                raise
            corrupt(path, row + 1, f"the compressed stream is damaged ({error})", "get the file again")

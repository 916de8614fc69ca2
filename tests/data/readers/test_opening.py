from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from ablab.contract.failure import DataError
from ablab.data.readers.opening import format_suffix, read_lines

TEXT = "first\nzweite ü\r\n\nlast without end"


@pytest.mark.parametrize(
    ("name", "pack"), [("a.txt", bytes), ("a.txt.gz", gzip.compress), ("a.xz", lzma.compress), ("a.bz2", bz2.compress)]
)
def test_lines_joined_are_the_file(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / name
    path.write_bytes(pack(TEXT.encode()))
    lines = list(read_lines(path))
    assert "".join(line for _, line in lines) == TEXT
    assert [row for row, _ in lines] == [1, 2, 3, 4]


@pytest.mark.parametrize(("name", "pack"), [("a.gz", gzip.compress), ("a.xz", lzma.compress), ("a.bz2", bz2.compress)])
@pytest.mark.parametrize("cut", [0.5, 0.02])
def test_a_damaged_compressed_file_is_named(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes], cut: float
) -> None:
    path = tmp_path / name
    data = pack(bytes(range(256)).hex().encode() * 50)
    path.write_bytes(data[: int(len(data) * cut)] + (b"" if cut == 0.5 else b"garbage" * 30))
    with pytest.raises(DataError, match=rf"{name}, line \d+: the compressed stream is damaged") as error:
        list(read_lines(path))
    assert error.value.detail["file"] == str(path)


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\nstill good\nba\xffd\n")
    with pytest.raises(DataError, match=r"a\.txt, line 3: byte 0xff at position 3 is not UTF-8") as error:
        list(read_lines(path))
    assert error.value.detail["row"] == 3


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfhello\n\xef\xbb\xbfsecond")
    assert [line for _, line in read_lines(path)] == ["hello\n", "\ufeffsecond"]


def test_what_cannot_be_opened_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        list(read_lines(tmp_path / "nothing.txt"))
    with pytest.raises(DataError, match="a folder, expected a file"):
        list(read_lines(tmp_path))


def test_the_format_lies_under_the_compression() -> None:
    assert format_suffix("x/a.JSONL.gz") == ".jsonl"
    assert format_suffix("a.b.txt") == ".txt"
    assert format_suffix("a") == ""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablab.contract.failure import DataError
from ablab.data.readers.parquet import read_parquet


def write(path: Path, column: pa.Array, name: str = "text") -> Path:
    pq.write_table(pa.table({name: column, "id": list(range(len(column)))}), path)
    return path


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_rows_are_streamed_in_order_across_batches(tmp_path: Path, kind: pa.DataType) -> None:
    wanted = [f"text {i} ü" for i in range(2500)]
    path = write(tmp_path / "a.parquet", pa.array(wanted, kind))
    found = list(read_parquet(path))
    assert [d.text for d in found] == wanted
    assert [d.row for d in found] == list(range(1, 2501))


def test_a_null_is_named_by_its_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pa.array(["x"] * 1500 + [None, "y"]))
    with pytest.raises(DataError, match=r"a\.parquet, row 1501: the field 'text' is null") as error:
        list(read_parquet(path))
    assert error.value.detail == {"file": str(path), "row": 1501}


def test_bytes_that_are_not_utf8_are_named_by_their_row(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"ba\xffd", b"good"], pa.binary()).view(pa.string())
    path = write(tmp_path / "a.parquet", raw)
    with pytest.raises(DataError, match=r"row 2: the text is not UTF-8"):
        list(read_parquet(path))


def test_what_is_no_such_file_or_column_is_explained(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pa.array(["x"]), name="content")
    with pytest.raises(DataError, match="no column 'text'; it has 'content', 'id'"):
        list(read_parquet(path))
    with pytest.raises(DataError, match="the column 'id' holds int64, expected strings"):
        list(read_parquet(path, field="id"))
    with pytest.raises(DataError, match="no such file"):
        list(read_parquet(tmp_path / "b.parquet"))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pa.array([f"text {i}" for i in range(5000)]))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"a\.parquet: not a readable parquet file"):
        list(read_parquet(path))

"""Rows written as JSONL or parquet by several processes: each part into a file of its own, joined in order."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablab.contract.failure import ConfigError, DataError
from ablab.data.tables.parts import Part, rows_of

#: Files that subsets can be written to.
OUTPUTS = (".jsonl", ".parquet")
_ROWS = 4096


def line_of(row: Mapping[str, Any], line: bytes) -> bytes:
    """Return a row as a line of JSONL: as it was where it is known."""
    if line:
        return line if line.endswith(b"\n") else line + b"\n"
    import orjson

    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY, default=str)


class Output:
    """Parts of an output beside it, joined at the end of a `with` that ends well; JSONL or parquet by its suffix."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.suffix not in OUTPUTS:
            raise ConfigError(f"{self.path}: rows are written as {' or '.join(OUTPUTS)}; name such a file")

    def __enter__(self) -> Output:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=".tmp-rows-"))
        return self

    def part(self, number: int) -> str:
        """Return the file of a part."""
        return str(self._folder / f"{number:06d}.jsonl")

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._join()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _join(self) -> None:
        files = sorted(self._folder.glob("*.jsonl"))
        whole = self._folder / "whole"
        if self.path.suffix == ".parquet":
            _write_parquet(files, whole)
        else:
            with whole.open("wb") as out:
                for file in files:
                    with file.open("rb") as part:
                        shutil.copyfileobj(part, out, 1 << 20)
                    file.unlink()
        whole.replace(self.path)


def _write_parquet(files: Sequence[Path], target: Path) -> None:
    """Write JSONL rows as parquet; the types of the columns are those that hold all rows.

    Raises:
        DataError: a field is a list in some rows and a scalar in others.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = (pa.Table.from_pylist(rows) for rows in _batches(files))
    try:
        schema = pa.unify_schemas([table.schema for table in tables], promote_options="permissive")
        with pq.ParquetWriter(target, schema) as writer:
            for rows in _batches(files):
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"the rows do not fit one parquet table ({reason}); write them as .jsonl") from error


def _batches(files: Iterable[Path]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for file in files:
        for row, _ in rows_of(Part(path=str(file))):
            batch.append(row)
            if len(batch) == _ROWS:
                yield batch
                batch = []
    if batch:
        yield batch

"""Token ids on disk: flat little-endian arrays in shard files, written as a stream and read by memory map."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from ablab.contract.failure import DataError
from ablab.store.files import naming_full_disk

#: Tokens gathered before they are written.
_BUFFER = 1 << 20


def token_dtype(vocabulary: int) -> np.dtype[np.unsignedinteger]:
    """Return the smallest type that holds every id: uint16 up to 65,536 tokens, else uint32 (little-endian)."""
    return np.dtype("<u2") if vocabulary <= 1 << 16 else np.dtype("<u4")


class ShardWriter:
    """Writes the tokens of one split into `<split>-00000.bin`, `<split>-00001.bin`, ... of `shard_tokens` each.

    Memory holds one buffer of a few megabytes. A document may span two shards.
    """

    def __init__(
        self, folder: str | os.PathLike[str], split: str, *, dtype: np.dtype[np.unsignedinteger], shard_tokens: int
    ) -> None:
        self._folder = Path(folder)
        self._split = split
        self._dtype = dtype
        self._room = shard_tokens
        self._shard_tokens = shard_tokens
        self._buffer: list[npt.NDArray[np.unsignedinteger]] = []
        self._buffered = 0
        self._file: BinaryIO | None = None
        self.shards: list[str] = []
        self.tokens = 0

    def write(self, tokens: npt.NDArray[np.unsignedinteger]) -> None:
        """Append tokens.

        Raises:
            DiskFullError: no space is left.
        """
        self._buffer.append(tokens.astype(self._dtype))
        self._buffered += len(tokens)
        if self._buffered >= _BUFFER:
            self._flush()

    def close(self) -> None:
        """Write what is left.

        Raises:
            DiskFullError: no space is left.
        """
        self._flush()
        if self._file is not None:
            with naming_full_disk(self._folder):
                self._file.close()
            self._file = None

    def _flush(self) -> None:
        if not self._buffer:
            return
        tokens = np.concatenate(self._buffer)
        self._buffer, self._buffered = [], 0
        with naming_full_disk(self._folder):
            while len(tokens):
                if self._file is None or not self._room:
                    self._next_file()
                assert self._file is not None
                part, tokens = tokens[: self._room], tokens[self._room :]
                self._file.write(part.tobytes())
                self._room -= len(part)
                self.tokens += len(part)

    def _next_file(self) -> None:
        if self._file is not None:
            self._file.close()
        name = f"{self._split}-{len(self.shards):05d}.bin"
        self._file = (self._folder / name).open("xb")
        self.shards.append(name)
        self._room = self._shard_tokens


class Tokens:
    """The tokens of a split as one array, over the memory maps of its shards. Reading is thread-safe.

    Args:
        files: shard files in their order.
        dtype: type of the ids on disk.
        length: tokens they must hold together.

    Raises:
        DataError: a file is missing, or they do not hold what they should.
    """

    def __init__(
        self, files: Sequence[str | os.PathLike[str]], *, dtype: np.dtype[np.unsignedinteger], length: int
    ) -> None:
        self.dtype = dtype
        self._maps: list[npt.NDArray[np.unsignedinteger]] = []
        for file in files:
            try:
                # A plain view of the map: indexing np.memmap itself costs twice as much.
                self._maps.append(np.asarray(np.memmap(file, dtype=dtype, mode="r")))
            except (OSError, ValueError) as error:
                raise DataError(
                    f"{file}: cannot be mapped ({error}); prepare the data again", file=str(file), row=None
                ) from error
        self._ends = np.cumsum([len(part) for part in self._maps], dtype=np.int64)
        found = int(self._ends[-1]) if len(self._ends) else 0
        if found != length:
            where = str(Path(files[0]).parent) if files else "the prepared data"
            raise DataError(
                f"{where}: shards hold {found} tokens, the manifest says {length}; prepare the data again",
                file=where,
                row=None,
            )

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, stop: int) -> npt.NDArray[np.unsignedinteger]:
        """Return tokens start to stop (exclusive, cut at the end) as an array of shape (tokens,)."""
        stop = min(stop, len(self))
        if start >= stop:
            return np.empty(0, dtype=self.dtype)
        parts = []
        shard = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            begin = int(self._ends[shard]) - len(self._maps[shard])
            parts.append(self._maps[shard][start - begin : stop - begin])
            start = int(self._ends[shard])
            shard += 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def gather(self, starts: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.int64]:
        """Return windows of `width` tokens from each start, int64 of shape (starts, width); all must lie inside."""
        if len(self._maps) == 1 and len(self) >= width:
            return sliding_window_view(self._maps[0], width)[starts].astype(np.int64)
        windows = np.empty((len(starts), width), dtype=np.int64)
        shards = np.searchsorted(self._ends, starts, side="right")
        spans = np.searchsorted(self._ends, starts + (width - 1), side="right") != shards
        for shard in np.unique(shards[~spans]):
            rows = np.flatnonzero((shards == shard) & ~spans)
            begin = self._ends[shard] - len(self._maps[shard])
            windows[rows] = sliding_window_view(self._maps[shard], width)[starts[rows] - begin]
        for row in np.flatnonzero(spans):
            windows[row] = self.read(int(starts[row]), int(starts[row]) + width)
        return windows

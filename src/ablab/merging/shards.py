"""Reading safetensors files by slices: the header once, then bytes of a tensor at a place, from any thread.

The library maps files whole or copies whole tensors; here a merge of models of any size holds a few blocks. What
tensors mean belongs to `sources`.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablab.contract.failure import DataError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER = "adapter_model.safetensors"
_HEADER_LIMIT = 100_000_000

#: Types of the format: name to (torch type, bytes).
DTYPES: dict[str, tuple[torch.dtype, int]] = {
    "F64": (torch.float64, 8), "F32": (torch.float32, 4), "F16": (torch.float16, 2), "BF16": (torch.bfloat16, 2),
    "I64": (torch.int64, 8), "I32": (torch.int32, 4), "I16": (torch.int16, 2), "I8": (torch.int8, 1),
    "U8": (torch.uint8, 1), "BOOL": (torch.bool, 1), "F8_E4M3": (torch.float8_e4m3fn, 1),
    "F8_E5M2": (torch.float8_e5m2, 1), "U16": (torch.uint16, 2), "U32": (torch.uint32, 4), "U64": (torch.uint64, 8),
}  # fmt: skip
NAMES = {dtype: name for name, (dtype, _) in DTYPES.items()}
#: Types a merge computes with.
FLOATS = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A tensor in a file: type name, shape, file descriptor's owner, place of its first byte."""

    dtype: str
    shape: tuple[int, ...]
    file: int
    offset: int

    @property
    def count(self) -> int:
        """Number of entries."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def bytes(self) -> int:
        """Size in the file."""
        return self.count * DTYPES[self.dtype][1]


class Shards:
    """The tensors of one or several safetensors files, opened once; closed with `close` or as a context.

    Args:
        files: safetensors files; a name may stand in one of them only.

    Raises:
        DataError: a file is damaged, or a tensor stands in two.
    """

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.entries: dict[str, Entry] = {}
        self.metadata: dict[str, str] = {}
        self._handles: list[int] = []
        try:
            for number, file in enumerate(files):
                self._handles.append(_open(file))
                for name, entry in self._read_header(number, file):
                    if name in self.entries:
                        raise DataError(
                            f"{file}: {name} stands in {files[self.entries[name].file].name} too", file=str(file)
                        )
                    self.entries[name] = entry
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files."""
        while self._handles:
            os.close(self._handles.pop())

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return the entries `start` to `stop` of a tensor as stored, of one dimension, in memory of their own."""
        dtype, _ = DTYPES[self.entries[name].dtype]
        data = self.read_bytes(name, start, stop)
        return torch.from_numpy(data).view(dtype) if len(data) else torch.empty(0, dtype=dtype)

    def read_bytes(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return the bytes of the entries `start` to `stop` of a tensor, uint8."""
        entry = self.entries[name]
        size = DTYPES[entry.dtype][1]
        stop = entry.count if stop is None else stop
        buffer = np.empty((stop - start) * size, dtype=np.uint8)
        view, offset = memoryview(buffer.data), entry.offset + start * size
        while len(view):
            got = os.preadv(self._handles[entry.file], [view], offset)
            if got == 0:
                file = self.files[entry.file]
                raise DataError(f"{file}: ends within {name}; copy or download it again", file=str(file))
            view, offset = view[got:], offset + got
        return buffer

    def expect(self, name: str, start: int, stop: int) -> None:
        """Ask the system to read the entries `start` to `stop` ahead: block by block it would wait for each."""
        if not hasattr(os, "posix_fadvise"):
            # Not every system can be asked.
            return
        entry = self.entries[name]
        size = DTYPES[entry.dtype][1]
        place = entry.offset + start * size
        os.posix_fadvise(self._handles[entry.file], place, (stop - start) * size, os.POSIX_FADV_WILLNEED)

    def _read_header(self, number: int, file: Path) -> Iterator[tuple[str, Entry]]:
        handle = self._handles[number]
        size = os.fstat(handle).st_size
        header, begin = _header(handle, file, size)
        self.metadata.update(header.pop("__metadata__", None) or {})
        for name, told in header.items():
            try:
                low, high = told["data_offsets"]
                entry = Entry(dtype=told["dtype"], shape=tuple(told["shape"]), file=number, offset=begin + low)
                fits = entry.dtype in DTYPES and high - low == entry.bytes and low >= 0
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{file}: the header's entry of {name} cannot be read", file=str(file)) from error
            if entry.dtype not in DTYPES:
                known = ", ".join(DTYPES)
                raise DataError(f"{file}: {name} has the type {entry.dtype}; known: {known}", file=str(file))
            if not fits or begin + high > size:
                raise DataError(
                    f"{file}: {size} bytes, and {name} reaches to {begin + high}; copy or download it again",
                    file=str(file),
                )
            yield name, entry


def _open(file: Path) -> int:
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(f"{file}: cannot be opened ({error.strerror})", file=str(file)) from error


def _header(handle: int, file: Path, size: int) -> tuple[dict[str, Any], int]:
    """Return a file's header and where its data begin."""
    start = os.pread(handle, 8, 0)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else _HEADER_LIMIT + 1
    if length > min(size - 8, _HEADER_LIMIT):
        hint = "; it is a pointer of Git LFS: fetch the file itself" if start.startswith(b"version ") else ""
        raise DataError(f"{file}: is no safetensors file{hint}", file=str(file))
    try:
        header = json.loads(os.pread(handle, length, 8))
    except ValueError as error:
        raise DataError(f"{file}: its header is not JSON", file=str(file)) from error
    if not isinstance(header, dict):
        raise DataError(f"{file}: its header is no JSON object", file=str(file))
    return header, 8 + length


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of a model: those its index names, or the single one; of a file, itself.

    Raises:
        DataError: there are none, or one is missing.
    """
    if folder.is_file():
        return [folder]
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise DataError(f"{index}: expected a weight_map of tensor names to files", file=str(index)) from error
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise DataError(f"{index}: names {missing[0]}, which is not there", file=str(folder / missing[0]))
        return [folder / name for name in names]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    raise DataError(f"{folder}: {_nothing(folder)}", file=str(folder))


def _nothing(folder: Path) -> str:
    """Return what a folder without weights holds instead, and what to do."""
    if not folder.is_dir():
        return "there is no such folder"
    others = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".gguf", ".safetensors"})
    found = f"; found {', '.join(others[:3])}" if others else ""
    pickled = any(name.endswith((".bin", ".pt", ".pth")) for name in others)
    remedy = ": save the model again with save_pretrained, which writes safetensors" if pickled else ""
    return f"holds neither {SINGLE} nor {INDEX}{found}{remedy}"

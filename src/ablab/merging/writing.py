"""Writing safetensors files in parts: the header first, since names, types and shapes are known, then blocks anywhere.

Files and index are what `save_pretrained` writes: model.safetensors, or model-00001-of-00003.safetensors with
model.safetensors.index.json.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablab.merging.shards import DTYPES, INDEX, SINGLE
from ablab.store.files import naming_full_disk, write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A tensor that will be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return int(np.prod(self.shape, dtype=np.int64)) * DTYPES[self.dtype][1]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where every tensor goes: files, and by name (file, first byte, type).

    Args:
        folder: of the files.
        files: their names.
        places: of the tensors.
        total: bytes of all tensors.
    """

    folder: Path
    files: tuple[str, ...]
    places: Mapping[str, tuple[int, int, str]]
    total: int

    def finish(self) -> None:
        """Write the index where there are several files."""
        if len(self.files) > 1:
            weight_map = {name: self.files[number] for name, (number, _, _) in sorted(self.places.items())}
            write_json(self.folder / INDEX, {"metadata": {"total_size": self.total}, "weight_map": weight_map})


def lay_out(
    folder: Path, planned: Sequence[Planned], *, shard_bytes: int, metadata: Mapping[str, str] | None = None
) -> Layout:
    """Make the files with their headers and their full size, and return where the tensors go.

    Args:
        folder: where the files go, empty.
        planned: the tensors, in the order of the files.
        shard_bytes: most bytes of tensors in a file; a larger tensor has one of its own.
        metadata: kept in each file.

    Raises:
        DiskFullError: there is no room for the whole result.
    """
    told = dict(sorted({"format": "pt", **(metadata or {})}.items()))
    places: dict[str, tuple[int, int, str]] = {}
    shards = split(planned, shard_bytes)
    many = len(shards) > 1
    names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" if many else SINGLE for n in range(1, len(shards) + 1)]
    with naming_full_disk(folder):
        for number, (name, shard) in enumerate(zip(names, shards, strict=True)):
            begin = _begin(folder / name, shard, told)
            for each in shard:
                places[each.name] = (number, begin, each.dtype)
                begin += each.bytes
    total = sum(each.bytes for each in planned)
    return Layout(folder=folder, files=tuple(names), places=places, total=total)


def _begin(path: Path, shard: Sequence[Planned], metadata: Mapping[str, str]) -> int:
    """Write a file's header, reserve its size, and return where the data begin."""
    header: dict[str, Any] = {"__metadata__": metadata}
    low = 0
    for each in shard:
        header[each.name] = {"dtype": each.dtype, "shape": list(each.shape), "data_offsets": [low, low + each.bytes]}
        low += each.bytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        # A disk too small says so now and not after hours.
        _allocate(handle, 8 + len(text) + low)
        os.pwrite(handle, len(text).to_bytes(8, "little") + text, 0)
    finally:
        os.close(handle)
    return 8 + len(text)


class ShardWriter:
    """Writes parts of tensors into the files of a layout, in any order, beside writers of other processes."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._handles = [os.open(layout.folder / name, os.O_WRONLY | os.O_CLOEXEC) for name in layout.files]

    def write(self, name: str, start: int, values: Tensor) -> None:
        """Write the entries from `start` of a tensor, converted to its type.

        Raises:
            DiskFullError: no space is left.
        """
        dtype, size = DTYPES[self._layout.places[name][2]]
        data = values.detach().to(device="cpu", dtype=dtype).contiguous().view(-1).view(torch.uint8).numpy()
        self.write_bytes(name, start * size, data)

    def write_bytes(self, name: str, position: int, data: np.ndarray) -> None:
        """Write bytes of a tensor as they are, from its byte `position` on."""
        number, offset, _ = self._layout.places[name]
        view, place = memoryview(data.data), offset + position
        with naming_full_disk(self._layout.folder):
            while len(view):
                done = os.pwrite(self._handles[number], view, place)
                view, place = view[done:], place + done

    def close(self) -> None:
        """Close the files."""
        while self._handles:
            os.close(self._handles.pop())


def split(planned: Sequence[Planned], shard_bytes: int) -> list[list[Planned]]:
    """Return the tensors of each file, in order; at least one file, though it be empty."""
    shards: list[list[Planned]] = [[]]
    size = 0
    for each in planned:
        if shards[-1] and size + each.bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(each)
        size += each.bytes
    # Wide types first, so that every tensor begins where its type may be read in place.
    return [sorted(shard, key=lambda each: -DTYPES[each.dtype][1]) for shard in shards]


def _allocate(handle: int, size: int) -> None:
    """Reserve a file's blocks where the file system can; elsewhere only set its size."""
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
            raise
        os.ftruncate(handle, size)

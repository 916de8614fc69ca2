"""Queries and passages on disk with random access: what preparing M2KR's files leaves, and training reads.

    <folder>/queries-<split>.jsonl, .offsets.npy   {id, text, question, image, answers, positives: [passage], kind}
    <folder>/passages.jsonl, .offsets.npy          {id, text, image}
    <folder>/pool-<split>.npy                      passages that are searched in a split, int64
    <folder>/images.json                           names; images.npy: uint8 (images, 3, size, size) where they are kept
    <folder>/manifest.json                         counts and facts

Positives are rows of the passages, images are rows of the names, None where there is none. Rows are read through a
memory map: however many there are, only those of a batch are decoded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablab.contract.failure import DataError
from ablab.data.images import Framing, ImageSource
from ablab.store.files import read_json

FORMAT = 1
MANIFEST = "manifest.json"
SPLITS = ("train", "val", "test")


class Rows:
    """JSON objects in a file, by number.

    Args:
        path: without suffix, as given to `write_rows`; None: there are no rows.

    Raises:
        DataError: the files are missing or damaged.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._offsets, self._bytes = np.zeros(1, np.int64), np.zeros(0, np.uint8)
        if path is None:
            return
        self._path = Path(f"{os.fspath(path)}.jsonl")
        try:
            self._offsets = np.load(f"{os.fspath(path)}.offsets.npy")
            self._bytes = (
                np.memmap(self._path, dtype=np.uint8, mode="r") if self._offsets[-1] else np.zeros(0, np.uint8)
            )
        except (OSError, ValueError) as error:
            raise DataError(f"{self._path}: cannot be read ({error}); prepare again", file=str(self._path)) from error
        if len(self._bytes) != self._offsets[-1]:
            raise DataError(f"{self._path}: {len(self._bytes)} bytes, expected {self._offsets[-1]}; prepare again")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._bytes[self._offsets[row] : self._offsets[row + 1]].tobytes())
        return found

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[row] for row in range(len(self)))


def write_rows(path: str | os.PathLike[str], rows: Iterable[dict[str, Any]]) -> int:
    """Write objects as `<path>.jsonl` with their offsets beside it; return how many."""
    offsets = [0]
    with Path(f"{os.fspath(path)}.jsonl").open("wb") as file:
        for row in rows:
            offsets.append(offsets[-1] + file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n"))
    np.save(f"{os.fspath(path)}.offsets.npy", np.array(offsets, dtype=np.int64))
    return len(offsets) - 1


class Pictures:
    """Images by number as uint8 (3, size, size), out of the kept array or decoded from their source.

    Args:
        names: of all images.
        kept: file of the array, or None.
        source: folder or tar file; needed where nothing is kept.
        framing: how an image becomes a square.
    """

    def __init__(self, names: Sequence[str], *, kept: Path | None, source: str | None, framing: Framing) -> None:
        self.names, self.framing, self._source = names, framing, source
        self._kept = None if kept is None else np.load(kept, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.names)

    def batch(self, rows: Sequence[int | None]) -> npt.NDArray[np.uint8]:
        """Return images, uint8 (rows, 3, size, size); black ones where the number is None."""
        side = self.framing.size
        found = np.zeros((len(rows), 3, side, side), dtype=np.uint8)
        for place, row in enumerate(rows):
            if row is not None:
                found[place] = self.load(row) if self._kept is None else self._kept[row]
        return found

    def __contains__(self, name: str) -> bool:
        """Whether the source has an image of this name; it may still be broken.

        Raises:
            DataError: there is no source.
        """
        return name in self._open

    def load(self, row: int) -> npt.NDArray[np.uint8]:
        """Decode one image from its source. Raises DataError when it is missing or broken."""
        frame: npt.NDArray[np.uint8] = self.framing.frame(self._open.open(self.names[row]))
        return frame

    @cached_property
    def _open(self) -> ImageSource:
        if self._source is None:
            raise DataError("images are named, but the data has no folder or tar file of them; set data.images")
        return ImageSource(self._source)


class Pairs:
    """Prepared queries and passages.

    Args:
        folder: what `preparing` wrote.

    Raises:
        DataError: the folder is missing, damaged or of another format.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.manifest: dict[str, Any] = read_json(self.folder / MANIFEST)
        if self.manifest.get("format") != FORMAT:
            raise DataError(f"{self.folder}: format {self.manifest.get('format')}, expected {FORMAT}; prepare again")

    @cached_property
    def passages(self) -> Rows:
        """All passages of all splits."""
        return Rows(self.folder / "passages")

    def queries(self, split: str) -> Rows:
        """Return the queries of a split; none where the data have no such split."""
        there = f"queries.{split}" in self.manifest["facts"]
        return Rows(self.folder / f"queries-{split}" if there else None)

    def pool(self, split: str) -> npt.NDArray[np.int64]:
        """Return the passages that are searched in a split, rising."""
        found: npt.NDArray[np.int64] = np.load(self.folder / f"pool-{split}.npy")
        return found

    @cached_property
    def pictures(self) -> Pictures:
        """All images."""
        kept = self.folder / "images.npy"
        return Pictures(
            json.loads((self.folder / "images.json").read_text(encoding="utf-8")),
            kept=kept if kept.is_file() else None,
            source=self.manifest["images"]["source"],
            framing=Framing(size=self.manifest["images"]["size"], aspect="crop"),
        )

    def positives(self, split: str) -> list[list[int]]:
        """Return the positives of every query of a split."""
        return [row["positives"] for row in self.queries(split)]

    def with_positives(self, split: str) -> npt.NDArray[np.int64]:
        """Return the queries of a split that have a positive, rising."""
        return np.flatnonzero([bool(row["positives"]) for row in self.queries(split)]).astype(np.int64)

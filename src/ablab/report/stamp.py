"""Tells cheaply whether anything a report is made from has changed: sizes and times of files, nothing read.

A finished run never changes, so only runs that are not done are looked at again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from ablab.store.claims import is_alive, read_holder
from ablab.store.files import CorruptFile
from ablab.store.layout import Store

#: Files of a run folder whose change a reader would see.
_OF_RUN = ("state.json", "result.json", "issues.jsonl")
#: Files of a study's folder that a report reads.
_OF_STUDY = ("notes.jsonl", "verdicts.jsonl", "references.jsonl")

#: Nanoseconds without a change after which a finished run is not looked at any more.
_SETTLED = 60 * 10**9

Mark = tuple[int, int, int] | None


class Stamp:
    """A value that differs whenever the report of a study would.

    Args:
        store: the store.
        folder: the study's folder in it.
        runs: names of the plan's runs; None looks at every run of the store.
        files: further files that count (the study file).
    """

    def __init__(
        self, store: Store, folder: Path, *, runs: Iterable[str] | None = None, files: Iterable[str | Path] = ()
    ) -> None:
        self._store, self._folder = store, folder
        self._runs = None if runs is None else list(runs)
        self._files = [os.fspath(path) for path in files]
        self._done: set[str] = set()

    def __call__(self) -> int:
        """Return the value as things stand."""
        root, settled = os.fspath(self._store.root), time.time_ns() - _SETTLED
        marks: list[object] = [mark(path) for path in self._files]
        marks += [mark(f"{self._folder}/{name}") for name in _OF_STUDY]
        marks += [mark(f"{root}/{name}") for name in ("launches", "runs")]
        names = self._runs if self._runs is not None else sorted(run.name for run in self._store.runs())
        for name in names:
            if name in self._done:
                continue
            found = tuple(mark(f"{root}/runs/{name}/{file}") for file in _OF_RUN)
            # A last state may come after the result: only what has been still for a while is settled.
            if found[1] is not None and all(each is None or each[0] < settled for each in found):
                self._done.add(name)
            else:
                marks.append((name, found, _alive(f"{root}/runs/{name}/claim.json")))
        return hash((len(self._done), *marks))


def _alive(claim: str) -> bool:
    """Whether a worker holds a run: a killed one changes no file, and its run is not running any more."""
    try:
        holder = read_holder(claim)
    except CorruptFile:
        return False
    return holder is not None and is_alive(holder)


def mark(path: str) -> Mark:
    """Return (modification time in ns, size, inode) of a file or folder; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - thousands of them
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

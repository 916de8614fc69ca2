"""What the store may let go: checkpoints of finished runs outside their retention, and remains of killed writers.

First a forecast (`removals`), then the work (`collect`), which looks again before it removes. Results, metrics, logs
and events are never removed, nor anything of a run that is not finished. What was dropped stays written in
`checkpoints/dropped.jsonl`, so that a later consumer sees a policy at work and not a loss.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ablab.contract.failure import AblabError
from ablab.store.claims import Claimed, acquire, is_alive, read_holder
from ablab.store.files import TEMPORARY, append_line, read_json, read_lines, sync_folder, temporary_name
from ablab.store.layout import RunFolder, Store
from ablab.store.manifest import NAME as MANIFEST

#: Seconds after which an unfinished name counts as left behind: in a run nobody works on, and elsewhere.
_REMAINS_IN_RUN, REMAINS = 60.0, 3600.0


class Retention(Protocol):
    """What a study keeps (`ablab.study.schema.Retention` has this shape)."""

    @property
    def last(self) -> bool:
        """Whether the last checkpoint stays."""
        ...

    @property
    def best(self) -> int:
        """How many of the best stay."""
        ...

    @property
    def every(self) -> int | None:
        """Steps between checkpoints that stay."""
        ...

    @property
    def intermediate(self) -> bool:
        """Whether weights stay whose consumers are all done."""
        ...


@dataclass(frozen=True, kw_only=True)
class Removal:
    """One thing that may go: a checkpoint of a run, the remains of a killed writer, or a frozen source.

    `run` is None for what belongs to no run.
    """

    path: Path
    run: RunFolder | None
    what: Literal["checkpoint", "remains", "source"]
    reason: str
    bytes: int
    files: int


@dataclass(frozen=True, kw_only=True)
class Index:
    """Content of `checkpoints/index.json`: names of checkpoints by role; `best` is ordered, best first."""

    last: str | None = None
    best: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


def removals(
    store: Store,
    *,
    pinned: Collection[str] = (),
    retention: Retention,
    runs: Collection[str] | None = None,
) -> list[Removal]:
    """Return what may be removed, without touching anything.

    Args:
        store: the store.
        pinned: keys (or names) of runs whose weights a pending run will read; inputs of unfinished runs that the
            store holds are pinned by themselves.
        retention: what the study keeps.
        runs: keys (or names) of the runs that the retention speaks for; None means every run of the store.
    """
    waiting, consumed = _consumers(store)
    pins = waiting | set(pinned)
    found: list[Removal] = []
    for run in store.runs():
        if _is_busy(run):
            continue
        if run.done and (runs is None or run.key in runs or run.name in runs):
            drop_all = not retention.intermediate and run.key in consumed
            is_pinned = run.key in pins or run.name in pins
            found += _checkpoints(run, retention, pinned=is_pinned, drop_all=drop_all)
            if not is_pinned and run.remake.exists:
                found.append(_removal(run.remake.path, run, "remains", "made again for what is done by now"))
        found += _remains(run.path, run, age=_REMAINS_IN_RUN)
    for folder in ("studies", "launches", "sources", "rehearsals", "runs"):
        found += _remains(store.root / folder, None, age=REMAINS, below=folder != "runs")
    return found


def collect(found: Iterable[Removal]) -> list[Removal]:
    """Remove what `removals` found and return what was removed.

    A run that somebody works on by now, a checkpoint that an unfinished run reads by now, and a source that a launch
    has frozen again by now are left alone.
    """
    done = []
    waiting: dict[Path, set[str]] = {}
    for removal in found:
        if removal.run is None:
            if removal.what == "source" and _is_young(removal.path):
                continue
            _erase(removal.path)
            done.append(removal)
            continue
        root = removal.run.path.parent.parent
        if root not in waiting:
            waiting[root] = _consumers(Store(root))[0]
        needed = removal.run.key in waiting[root] and removal.path.name in _needed(removal.run)
        if removal.what == "checkpoint" and needed:
            continue
        with contextlib.suppress(Claimed), acquire(removal.run.claim_path):
            if removal.what == "checkpoint":
                record = {"name": removal.path.name, "time": time.time(), "bytes": removal.bytes}
                append_line(_dropped_path(removal.run), {**record, "reason": removal.reason}, sync=True)
            _erase(removal.path)
            done.append(removal)
    return done


def dropped(run: RunFolder) -> dict[str, str]:
    """Return why by name of the checkpoints that retention removed and that were not made again."""
    rows = read_lines(_dropped_path(run))
    return {row["name"]: row["reason"] for row in rows if not (run.checkpoints / row["name"]).exists()}


def read_index(run: RunFolder) -> Index:
    """Return which checkpoints of a run are last, best and kept; empty when there is no index.

    Raises:
        CorruptFile: the index is not JSON.
    """
    try:
        content = read_json(run.checkpoints / "index.json")
    except FileNotFoundError:
        return Index()
    best = tuple(str(entry["name"]) for entry in content.get("best") or ())
    return Index(last=content.get("last"), best=best, keep=tuple(content.get("keep") or ()))


def disk_free(path: str | os.PathLike[str]) -> int:
    """Return the bytes this user may still write to the disk of `path`, which need not exist yet."""
    path = Path(path).resolve()
    return shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists())).free


def folder_bytes(path: str | os.PathLike[str]) -> int:
    """Return the bytes of all files below a folder (or of a file); links are not followed, 0 when it is missing."""
    return folder_size(path)[0]


def folder_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return bytes and number of the files below a folder (or of a file)."""
    size, files, folders = 0, 0, [os.fspath(path)]
    while folders:
        # Files come and go while others work: what vanished is not there.
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        size += entry.stat(follow_symlinks=False).st_size
                        files += 1
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            return Path(path).stat().st_size, 1
    return size, files


def _checkpoints(run: RunFolder, retention: Retention, *, pinned: bool, drop_all: bool) -> Iterator[Removal]:
    names = _names(run)
    if not names:
        return
    try:
        index = read_index(run)
    except (AblabError, AttributeError, TypeError, KeyError):
        # Without a readable index nobody knows which checkpoint is which: all of them stay.
        return
    kept = set(index.keep) | {name for name, step in names.items() if retention.every and step % retention.every == 0}
    needed = _needed(run, index)
    reason = "outside the retention"
    if pinned:
        kept |= needed
    if drop_all and not pinned:
        reason = "every run that reads it is done"
    else:
        kept |= {index.last} if retention.last and index.last else set()
        kept |= set(index.best[: retention.best])
    for name in sorted(names):
        path = run.checkpoints / name
        if not (path / MANIFEST).exists():
            yield _removal(path, run, "remains", "never finished")
        elif name not in kept:
            yield _removal(path, run, "checkpoint", reason)


def _needed(run: RunFolder, index: Index | None = None) -> set[str]:
    """Return the names that a consumer of the run may ask for: its last and its best checkpoint."""
    index = read_index(run) if index is None else index
    return {name for name in (index.last, *index.best[:1]) if name}


def _names(run: RunFolder) -> dict[str, int]:
    """Return step by name of the checkpoints there are."""
    try:
        with os.scandir(run.checkpoints) as entries:
            names = [entry.name for entry in entries if entry.name.startswith("step-") and entry.is_dir()]
    except FileNotFoundError:
        return {}
    return {name: int(name[5:]) for name in names if name[5:].isascii() and name[5:].isdigit()}


def _consumers(store: Store) -> tuple[set[str], set[str]]:
    """Return the keys that unfinished runs of the store read, and those that only finished ones read."""
    waiting: set[str] = set()
    read: set[str] = set()
    for run in store.runs():
        try:
            order = read_json(run.order_path)
        except (FileNotFoundError, AblabError):
            continue
        keys = {entry["key"] for entry in order.get("inputs", ())}
        read |= keys
        if not run.done:
            waiting |= keys
    return waiting, read - waiting


def _is_busy(run: RunFolder) -> bool:
    holders = [read_holder(run.claim_path), read_holder(run.remake.claim_path)]
    return any(holder is not None and is_alive(holder) for holder in holders)


def _remains(folder: Path, run: RunFolder | None, *, age: float, below: bool = True) -> Iterator[Removal]:
    """Yield unfinished names in a folder, and below it, that nobody has touched for `age` seconds."""
    for root, folders, names in os.walk(folder):
        for name in [name for name in (*folders, *names) if name.startswith(TEMPORARY)]:
            path = Path(root, name)
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.lstat().st_mtime > age:
                    yield _removal(path, run, "remains", "left behind by a writer that was killed")
        folders[:] = [name for name in folders if below and not name.startswith(TEMPORARY)]


def _is_young(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime <= REMAINS
    except FileNotFoundError:
        return True


def _removal(path: Path, run: RunFolder | None, what: Literal["checkpoint", "remains"], reason: str) -> Removal:
    size, files = (0, 1) if path.is_symlink() else folder_size(path)
    return Removal(path=path, run=run, what=what, reason=reason, bytes=size, files=files)


def _erase(path: Path) -> None:
    """Remove a file or folder; a folder first loses its name, so that nobody ever sees it half gone."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    away = path
    if not path.name.startswith(TEMPORARY):
        away = temporary_name(path)
        path.rename(away)
        sync_folder(path.parent)
    shutil.rmtree(away, ignore_errors=True)


def _dropped_path(run: RunFolder) -> Path:
    return run.checkpoints / "dropped.jsonl"

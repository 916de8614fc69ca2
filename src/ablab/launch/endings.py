"""How an attempt ended: the worker's own record where it left one, else what its process tells.

Reads only. A worker that is killed leaves no record; the launcher writes one for it, so that every attempt has its
end on disk.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any, get_args

from ablab.contract.failure import EXIT_STOPPED, DiskFullError, FailureKind
from ablab.launch.executors.base import Exit
from ablab.launch.failures import Ending
from ablab.store.files import CorruptFile, write_json
from ablab.store.layout import RunFolder
from ablab.store.redact import scrub
from ablab.store.retention import disk_free

_KINDS = frozenset(get_args(FailureKind))
#: Lines of the log that go into the message of a crash without a record.
_TAIL = 5
#: Free bytes below which a worker may not even have been able to say that the disk is full.
_FULL = 2**20


def read_ending(folder: RunFolder, attempt: int, ended: Exit) -> Ending:
    """Return how attempt `attempt` ended without a result; its end record is written if it has none."""
    mark = checkpoint_mark(folder.checkpoints)
    # A worker that finds its number used takes the next one.
    attempt = max(folder.attempts(), default=attempt)
    # A worker that was killed could not clean up what its libraries printed.
    scrub(folder.attempt(attempt).log)
    record = _record(folder, attempt)
    if record is None:
        kind, message = _from_process(ended, folder.attempt(attempt).log)
        if kind == "crash" and disk_free(folder.path) < _FULL:
            kind, message = "disk-full", "the worker could leave no record, since the disk is full"
        record = {"kind": kind, "message": message, "detail": {"exit": ended.code}, "time": time.time()}
        with contextlib.suppress(DiskFullError):
            write_json(folder.attempt(attempt).end, {"format": 1, **record})
    detail = record.get("detail")
    return Ending(
        kind=record["kind"],
        message=str(record.get("message", "")),
        detail=detail if isinstance(detail, dict) else {},
        attempt=attempt,
        checkpoint=mark,
    )


def checkpoint_mark(checkpoints: Path) -> str:
    """Return a text that changes whenever a checkpoint is written."""
    try:
        with os.scandir(checkpoints) as entries:
            found = [(e.name, e.stat().st_mtime_ns) for e in entries if e.is_dir() and not e.name.startswith(".")]
    except FileNotFoundError:
        return ""
    return "{} {}".format(*max(found, key=lambda item: (item[1], item[0]))) if found else ""


def _record(folder: RunFolder, attempt: int) -> dict[str, Any] | None:
    try:
        record = folder.attempt(attempt).read_end()
    except CorruptFile:
        return None
    if record is None:
        return None
    if record.get("kind") == "done":
        # Recorded as done, but nothing was published: whatever happened in between, the work must go on.
        return {**record, "kind": "lost", "message": "the worker was done but its result was not published"}
    return record if record.get("kind") in _KINDS else {**record, "kind": "crash"}


def _from_process(ended: Exit, log: Path) -> tuple[FailureKind, str]:
    if ended.kind is not None:
        return ended.kind, ended.message
    if ended.code is None:
        return "killed", "the worker is gone and left no record"
    if ended.code < 0:
        return "killed", f"the worker was ended by {_signal_name(-ended.code)}"
    if ended.code == EXIT_STOPPED:
        return "stopped", "stopped on request"
    return "crash", f"the worker exited with status {ended.code} and left no record{_last_words(log)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    tail = [line.strip() for line in lines[-_TAIL:] if line.strip()]
    return f"; its log ends: {' | '.join(tail)}" if tail else ""

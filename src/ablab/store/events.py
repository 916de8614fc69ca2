"""Events of a run: written by its worker at a few microseconds each, read by everyone else.

The types and keys of events are in `ablab.contract.events`. A value that is not finite is written as JSON's common
extension `NaN`, `Infinity`, `-Infinity`, which Python reads back as it was. A file has one writer: the attempt's
worker, which holds the run's claim.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Set
from typing import Any, cast

from ablab.contract.events import Event
from ablab.store.faults import naming_full_disk
from ablab.store.layout import RunFolder
from ablab.store.lines import (
    HEADER,
    encode_line,
    mend_last_line,
    open_for_lines,
    parse_lines,
    read_lines,
    write_lines,
)
from ablab.store.redact import redact

#: Events that come often and may wait for the next flush; every other kind is on its way at once.
_OFTEN = frozenset({"step", "progress", "resource", "time"})
#: Events that hold text from anywhere, which may quote a secret.
_TEXTS = frozenset({"message", "end"})
_SIZE, _AGE = 64, 0.5

_clock = time.time


class EventWriter:
    """Appends events to one file, whole lines only; safe to use from several threads.

    Frequent events are held back until 64 lines or the next event after half a second; `flush` writes them now.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._handle = open_for_lines(path)
        with naming_full_disk(path):
            self._end = mend_last_line(self._handle)
        self._lines: list[bytes] = []
        self._due = _clock() + _AGE
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def log(self, e: str, /, **values: Any) -> None:
        """Append an event of type `e` with the time now; secrets in messages are hidden.

        Raises:
            DiskFullError: no space is left; the event is kept and written by a later flush.
            TypeError: a value that JSON cannot hold.
        """
        now = _clock()
        if e in _TEXTS:
            values = redact(values)
        line = encode_line({"e": e, "t": now, **values})
        with self._lock:
            self._lines.append(line)
            if now >= self._due or len(self._lines) >= _SIZE or e not in _OFTEN:
                self._write(now)

    def flush(self, *, sync: bool = False) -> None:
        """Write what is held back; with `sync`, it is on the device when this returns."""
        with self._lock:
            if self._handle >= 0:
                self._write(_clock())
                if sync:
                    os.fsync(self._handle)

    def close(self) -> None:
        """Write what is held back and close the file; closing twice is allowed."""
        with self._lock:
            if self._handle < 0:
                return
            try:
                self._write(_clock())
            finally:
                os.close(self._handle)
                self._handle = -1

    def _write(self, now: float) -> None:
        if self._pid != os.getpid():
            # A forked child inherits lines that its parent will write.
            self._lines.clear()
            return
        self._due = now + _AGE
        if not self._lines:
            return
        if self._handle < 0:
            raise ValueError(f"{self._path}: the event file is closed")
        data = b"".join(self._lines if self._end else (HEADER, *self._lines))
        write_lines(self._handle, data, end=self._end, path=self._path)
        self._end += len(data)
        self._lines.clear()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_attempt_events(path: str | os.PathLike[str], *, problems: list[str] | None = None) -> list[Event]:
    """Return all events of one file; a missing file has none, a torn last line is ignored.

    Args:
        path: the file.
        problems: when given, a corrupt line is skipped and described here instead of raising.

    Raises:
        CorruptFile: a line that is no event; the message names file and line.
    """
    return cast(list[Event], read_lines(path, problems=problems, exact=False))


def read_events(run: RunFolder, *, problems: list[str] | None = None) -> list[Event]:
    """Return the events of a run over all attempts, oldest first, each with its `attempt`.

    An attempt starts from a step (its `start` event); events of older attempts with a later step were done again
    and are left out. Events without a step (messages, time, ends) all stay.
    """
    merged: list[Event] = []
    for number in run.attempts():
        own = read_attempt_events(run.attempt(number).events, problems=problems)
        resumed = [event.get("step", 0) for event in own if event.get("e") == "start"]
        if resumed and merged:
            # What an attempt logs again at the very step it resumed from counts once.
            again = {(event.get("e"), event["step"]) for event in own if "step" in event and event.get("e") != "start"}
            merged = [event for event in merged if not _is_superseded(event, min(resumed), again)]
        for event in own:
            event["attempt"] = number
        merged.extend(own)
    return merged


def _is_superseded(event: Event, resumed: int, again: Set[tuple[str | None, int]]) -> bool:
    step = event.get("step", 0)
    return step > resumed or (event.get("e"), step) in again


def tail_events(path: str | os.PathLike[str], n: int) -> list[Event]:
    """Return the last `n` events of a file by reading only its end; lines that are no events are skipped."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        size = os.fstat(handle).st_size
        start, data = size, b""
        # One line more than asked, since the first may be cut and the last torn.
        while start and data.count(b"\n") < n + 2:
            length = min(start, max(8192, len(data)))
            start -= length
            data = os.pread(handle, length, start) + data
    finally:
        os.close(handle)
    if start:
        data = data.partition(b"\n")[2]
    events = parse_lines(data, path, problems=[])
    return cast(list[Event], events[-n:] if n else [])

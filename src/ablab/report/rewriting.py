"""Rewrite a report while runs go on: in the background, seldom, and never at the cost of the runs.

A thread of the lowest priority writes; the next writing waits at least `every` seconds, and twenty times as long as
the last one took, so that a large study spends no more than a twentieth of one core on being told. A writing that
fails is left to the next one: the report at the end of a launch is written in the foreground and shows its error.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

#: Seconds of pause for each second a writing took.
PAUSE = 20.0


class Notice(Protocol):
    """What a launch tells (`ablab.launch.options.Notice` has this shape)."""

    @property
    def kind(self) -> str:
        """What happened."""
        ...


Heard = TypeVar("Heard", bound=Notice)


class Rewriter:
    """Writes now and then, when ticked.

    Args:
        write: writes the report, whole or not at all.
        every: seconds between two writings, at least; None never writes.
        clock: seconds of a clock that only goes forward.
    """

    def __init__(
        self, write: Callable[[], object], *, every: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._every = every
        self._clock = clock
        self._due = clock() + (every or 0.0)
        self._thread: threading.Thread | None = None
        self.error: Exception | None = None

    def tick(self) -> bool:
        """Start a writing if one is due and none is going on; return whether it was started. Returns at once."""
        if self._every is None or self._clock() < self._due:
            return False
        if self._thread is not None and self._thread.is_alive():
            return False
        self._thread = threading.Thread(target=self._work, name="ablab-report", daemon=True)
        self._thread.start()
        return True

    def close(self) -> None:
        """Wait for the writing that is going on, so that nothing is written after this returns."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def beside(self, listener: Callable[[Heard], None] | None) -> Callable[[Heard], None]:
        """Return a listener of a launch that passes everything on and ticks."""

        def heard(notice: Heard) -> None:
            if listener is not None:
                listener(notice)
            self.tick()

        return heard

    def behind(self, notice: Notice) -> None:
        """Listen to a launch in the background: tick, and write a last time when it has ended."""
        if notice.kind != "ended":
            self.tick()
            return
        self.close()
        if self._every is not None:
            self._attempt()

    def _work(self) -> None:
        # On Linux a thread has a priority of its own; elsewhere the pauses have to do.
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        self._attempt()

    def _attempt(self) -> None:
        began = self._clock()
        self.error = None
        try:
            self._write()
        except Exception as error:
            # What cannot be told now must not end what is running.
            self.error = error
        took = self._clock() - began
        self._due = self._clock() + max(self._every or 0.0, PAUSE * took)

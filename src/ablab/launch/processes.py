"""Watching and signalling processes of this machine that may not be our children.

A process is told from a later one with the same number by its start time (`ablab.store.processes`).
"""

from __future__ import annotations

import contextlib
import os
import signal

from ablab.store.processes import process_start


class Watch:
    """Waits for one process without polling where the kernel has process file descriptors.

    Args:
        pid: the process.
        start: its start time as `process_start` gives it; None takes that of the process that is there now.
    """

    def __init__(self, pid: int, start: str | None = None) -> None:
        self.pid = pid
        self._handle: int | None = None
        with contextlib.suppress(OSError, AttributeError):
            self._handle = os.pidfd_open(pid)
        self._start = process_start(pid) if start is None else start

    @property
    def descriptor(self) -> int | None:
        """File descriptor that is readable once the process has ended; None where there is none."""
        return self._handle

    @property
    def ended(self) -> bool:
        """Whether the process is gone or a zombie."""
        return self._start is None or process_start(self.pid) != self._start

    def signal(self, number: int) -> None:
        """Send a signal to the process if it is still the same one; without effect once it has ended."""
        if self.ended:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                kill_tree(self.pid)
            elif self._handle is not None:
                signal.pidfd_send_signal(self._handle, number)
            else:
                os.kill(self.pid, number)

    def close(self) -> None:
        """Let go of the process."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def kill_tree(pid: int) -> None:
    """Kill a process and all that descends from it; the root first, so that it starts nothing more."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        below = root.children(recursive=True)
        root.kill()
        for child in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def children(pid: int) -> list[int]:
    """Return the processes that `pid` started itself and that still run."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []

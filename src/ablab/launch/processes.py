"""Watching and signalling processes of this machine that may not be our children.

A process is told from a later one with the same number by its start time (`ablab.store.processes`).
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

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


class KernelKills:
    """Counts the processes of our control group that the kernel killed because memory ran out."""

    def __init__(self) -> None:
        self._file = _memory_events()
        self._seen = self._count()

    def grew(self) -> bool:
        """Whether the kernel has killed again since the last question."""
        before, self._seen = self._seen, self._count()
        return self._seen > before

    def _count(self) -> int:
        if self._file is None:
            return 0
        try:
            lines = self._file.read_text(encoding="ascii").splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _memory_events() -> Path | None:
    """Return the file in which the kernel (cgroup v2) counts out-of-memory kills of our group."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if own is None:
        return None
    places = (Path("/sys/fs/cgroup") / own.lstrip("/") / "memory.events", Path("/sys/fs/cgroup/memory.events"))
    return next((place for place in places if place.exists()), None)


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

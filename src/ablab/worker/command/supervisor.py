"""Stands between a worker and the program of a command stage, so that no program outlives a worker that was killed.

    python -I -S supervisor.py LIFE STATUS PROGRAM [ARGUMENT ...]

Leads a process group in which the program runs. LIFE is a descriptor that closes when the worker is gone, however it
went: then the group is killed at once. STATUS takes one JSON line: {"exit": status, negative for a signal, "rss": peak
bytes of the program} or {"error": why the program could not start}. Nothing but the standard library is imported,
since this starts every time.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from typing import Any, NoReturn

#: Seconds between looks where the kernel has no process file descriptors.
_EVERY = 0.05


def main() -> int:
    """Run the program to its end."""
    life, status = int(sys.argv[1]), int(sys.argv[2])
    # The group's requests are the program's to answer. A handler, not "ignore", since that would be inherited.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)
    try:
        child = subprocess.Popen(sys.argv[3:])
    except OSError as error:
        _tell(status, error=f"{error.strerror}: {error.filename or sys.argv[3]}")
        return 1
    _release_output()
    while not _ended(child, life):
        pass
    _tell(status, exit=child.wait(), rss=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
    return 0


def _ended(child: subprocess.Popen[bytes], life: int) -> bool:
    """Wait for the program's end or the worker's; the latter ends everything."""
    watch: list[int] = [life]
    pid_handle: int | None = None
    with contextlib.suppress(OSError, AttributeError):
        pid_handle = os.pidfd_open(child.pid)
        watch.append(pid_handle)
    try:
        readable, _, _ = select.select(watch, [], [], None if pid_handle is not None else _EVERY)
    finally:
        if pid_handle is not None:
            os.close(pid_handle)
    ended = child.poll() is not None
    if life in readable and not ended:
        _end_everything()
    return ended


def _end_everything() -> NoReturn:
    os.killpg(0, signal.SIGKILL)
    while True:
        time.sleep(_EVERY)


def _release_output() -> None:
    """Let go of the program's output: its reader is to see the end when the program lets go of it."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def _tell(status: int, **values: Any) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(status, json.dumps(values).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())

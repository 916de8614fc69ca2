"""Requests to stop a launch: signals, a stop file in its folder (from another machine), and the time it may last.

The first request lets workers checkpoint; a second one, or the end of the grace period, kills them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Control:
    """What was asked of a launch so far.

    Args:
        stop_file: file whose appearance asks to stop; None has none.
        until: Unix time at which the launch is to have stopped.
        grace: seconds between the request and the kill.
    """

    def __init__(self, *, stop_file: Path | None = None, until: float | None = None, grace: float = 60.0) -> None:
        self._stop_file = stop_file
        self._until = until
        self._grace = grace
        self._asked = 0
        self.reason = ""
        self._since: float | None = None
        self._receiver, self._sender = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    @property
    def descriptor(self) -> int:
        """File descriptor that is readable when a request came since the last `look`."""
        return self._receiver

    @property
    def stopping(self) -> bool:
        """Whether to start nothing more and let workers checkpoint and stop."""
        return self._asked > 0

    @property
    def killing(self) -> bool:
        """Whether to kill workers that are still there."""
        return self._asked > 1 or (self._since is not None and time.monotonic() - self._since > self._grace)

    @property
    def reached_until(self) -> bool:
        """Whether the time given by --until has come."""
        return self._until is not None and time.time() >= self._until

    def ask(self, reason: str) -> None:
        """Ask to stop, or, the second time, to kill. Safe in a signal handler."""
        self._asked += 1
        self.reason = self.reason or reason
        if self._since is None:
            self._since = time.monotonic()
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._sender, b"x")

    def look(self) -> None:
        """Take note of the stop file and of the clock."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._receiver, 4096)
        if self._asked:
            return
        if self._stop_file is not None and self._stop_file.exists():
            self.ask("ablab stop")
        elif self.reached_until:
            self.ask("the time of --until has come")

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Take Ctrl-C, SIGTERM and hang-up as requests while the block runs; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._heard)
        try:
            yield
        finally:
            for number, handler in before.items():
                # None: it was not installed from Python, and cannot be put back from here.
                if handler is not None:
                    signal.signal(number, handler)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._receiver)
        os.close(self._sender)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.ask(signal.Signals(number).name)

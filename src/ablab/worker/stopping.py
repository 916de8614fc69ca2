"""Requests to stop: signals and the deadline. The first asks for a clean stop, a second ends the stage at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ablab.contract.failure import FailureKind, StopRequested

#: Signals by the kind of end they ask for; SLURM and its wrappers announce a time limit with the user signals.
_KINDS: dict[int, FailureKind] = {
    signal.SIGTERM: "stopped",
    signal.SIGINT: "stopped",
    signal.SIGUSR1: "time-limit",
    signal.SIGUSR2: "time-limit",
}


class Stop:
    """Whether and why a stop was asked for."""

    def __init__(self, deadline: float | None = None) -> None:
        self.kind: FailureKind | None = None
        self.reason = ""
        self._deadline = deadline

    def requested(self) -> bool:
        """Whether to stop at the next clean point."""
        if self.kind is None and self._deadline is not None and time.time() >= self._deadline:
            self.kind, self.reason = "stopped", "the deadline was reached"
        return self.kind is not None

    def on_signal(self, number: int, _: FrameType | None) -> None:
        """Handle a signal."""
        name = signal.Signals(number).name
        if self.kind is not None:
            raise StopRequested(f"stopped at once by a second signal ({name})")
        self.kind, self.reason = _KINDS[number], f"signal {name}"


@contextmanager
def handling_signals(stop: Stop) -> Iterator[None]:
    """Let signals reach `stop` during the block; a hang-up is ignored, since workers outlive their launcher.

    Outside the main thread (a notebook, a test) signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop.on_signal) for number in _KINDS}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""A name for every second: switching between names, so that they sum to the wall clock by construction."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ablab.contract.result import TIMES


class Clock:
    """Seconds by name of one attempt. Nesting pauses the outer name; outside any name, time goes to the base name.

    Args:
        began: `time.monotonic()` when the process started; what passed since is start-up.
    """

    def __init__(self, began: float) -> None:
        self.began = began
        self._totals: dict[str, float] = dict.fromkeys(TIMES, 0.0)
        self._stack = ["start-up"]
        self._mark = began

    def _turn(self) -> None:
        now = time.monotonic()
        self._totals[self._stack[-1]] += now - self._mark
        self._mark = now

    def base(self, name: str) -> None:
        """Change the name of time outside any block, from now on."""
        self._turn()
        self._stack[0] = name

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Account the enclosed seconds to `name`. KeyError for a name that is not in TIMES."""
        if name not in self._totals:
            raise KeyError(f"{name!r} is no name of time; expected one of {', '.join(TIMES)}")
        self._turn()
        self._stack.append(name)
        try:
            yield
        finally:
            self._turn()
            self._stack.pop()

    def totals(self) -> dict[str, float]:
        """Return the seconds of each name so far; safe to call from another thread."""
        totals, stack, mark = dict(self._totals), list(self._stack), self._mark
        totals[stack[-1]] += max(0.0, time.monotonic() - mark)
        return totals


def process_began() -> float:
    """Return `time.monotonic()` at the start of this process, so that imports count as start-up."""
    import psutil

    age = time.time() - psutil.Process().create_time()
    return time.monotonic() - max(0.0, age)

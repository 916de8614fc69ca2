"""What the launcher writes into run folders: states between attempts, issues with their resolutions, links by name.

A full disk must not end a launch: what cannot be written now is kept and written when there is space.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from ablab.contract.failure import DiskFullError
from ablab.contract.state import State, Status
from ablab.launch.failures import Ending
from ablab.store.layout import RunFolder, Store
from ablab.study.schema import Study


class Records:
    """Writes into the run folders of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[Callable[[], object]] = deque()

    def state(self, folder: RunFolder, status: Status, *, kind: str | None = None, message: str = "") -> None:
        """Say where a run stands between attempts; what its worker last wrote of its progress is kept."""
        self._write(lambda: _write_state(folder, status, kind=kind, message=message))

    def issue(self, folder: RunFolder, ending: Ending, resolution: str) -> None:
        """Append a row of issues and resolutions."""
        row = {
            "time": time.time(),
            "kind": ending.kind,
            "message": ending.message,
            "detail": dict(ending.detail),
            "attempt": ending.attempt,
            "resolution": resolution,
        }
        self._write(lambda: folder.append_issue(row))

    def links(self, study: Study, users: Iterable[tuple[str, int, str]], run: str) -> None:
        """Make a run reachable by the names of its users: (experiment, seed, stage)."""
        for experiment, seed, stage in users:
            self._write(partial(self._store.link, study.name, study.profile, experiment, seed, stage, run))

    def flush(self) -> None:
        """Write what could not be written before, in order; stop at the first that still cannot."""
        while self._waiting:
            try:
                self._waiting[0]()
            except (DiskFullError, OSError):
                return
            self._waiting.popleft()

    def _write(self, action: Callable[[], object]) -> None:
        self._waiting.append(action)
        self.flush()


def _write_state(folder: RunFolder, status: Status, *, kind: str | None, message: str) -> None:
    before = folder.known_state()
    now = time.time()
    base = before or State(status=status, updated=now)
    ended = now if status in {"failed", "stopped"} else None
    changes = {"status": status, "kind": kind, "message": message, "updated": now, "finished": ended, "remaining": None}
    folder.write_state(base.model_copy(update=changes))

"""What a stage sees of its worker: events, state, named time, inputs, requests to stop.

A thread writes `state.json` once a second and samples memory now and then, so that telling costs the stage no more
than filling a dictionary.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from ablab.contract.failure import ConfigError, DiskFullError
from ablab.contract.order import Input, Numerics, Order
from ablab.contract.state import State, Status
from ablab.store.claims import Claim, ClaimLost
from ablab.store.events import EventWriter
from ablab.store.layout import AttemptFolder, RunFolder
from ablab.worker import gauges
from ablab.worker.clock import Clock
from ablab.worker.stopping import Stop

#: Seconds between writings of the state, and between samples of memory and time.
STATE_EVERY, SAMPLE_EVERY = 1.0, 10.0

Mirror = Callable[[dict[str, Any]], None]


class WorkerContext:
    """Implements `ablab.contract.context.Context` for one attempt.

    Args:
        order: what to do.
        run: its folder.
        attempt: folder of this attempt; None in a process that writes nothing (rank above 0).
        numerics: the record of this attempt.
        clock: named time, running since the process started.
        stop: requests to stop.
        claim: our claim of the run; None in a process that writes nothing.
        mirror: gets every event too (trackers); must not raise.
    """

    def __init__(
        self,
        order: Order,
        run: RunFolder,
        *,
        attempt: AttemptFolder | None,
        numerics: Numerics,
        clock: Clock,
        stop: Stop,
        claim: Claim | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self.order, self.numerics = order, numerics
        self.folder: Path = run.path
        self.attempt = attempt
        self._run, self._clock, self._stop, self._mirror = run, clock, stop, mirror
        self._claim = claim
        self._events = EventWriter(attempt.events) if attempt else None
        self._fields: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._sharing = gauges.Sharing()
        self._started = self._first_start()
        self._thread: threading.Thread | None = None
        if attempt is not None:
            self.write_state("running")
            self._thread = threading.Thread(target=self._keep, name="ablab-state", daemon=True)
            self._thread.start()

    def _first_start(self) -> float:
        before = self._run.known_state() if self.attempt else None
        return before.started if before is not None and before.started is not None else time.time()

    @property
    def artifacts(self) -> Path:
        """Folder `artifacts/` of the run, created."""
        self._run.artifacts.mkdir(parents=True, exist_ok=True)
        return self._run.artifacts

    @property
    def checkpoints(self) -> Path:
        """Folder `checkpoints/` of the run, created."""
        self._run.checkpoints.mkdir(parents=True, exist_ok=True)
        return self._run.checkpoints

    def event(self, e: str, /, **values: Any) -> None:
        """Append an event."""
        if self._events is None:
            return
        if e == "start":
            values = {"pid": os.getpid(), "host": platform.node(), **values}
        self._events.log(e, **values)
        if self._mirror is not None:
            self._mirror({"e": e, **values})

    def flush(self) -> None:
        """Bring the events so far to disk. Raises ClaimLost when the run is not ours any more."""
        if self._claim is not None:
            self._claim.check()
        if self._events is not None:
            self._events.flush(sync=True)

    def progress(self, done: float, total: float, *, unit: str = "") -> None:
        """Say how much of the whole work is done; an event a second at most, through the state's thread."""
        share = min(1.0, done / total) if total else 0.0
        self.state(progress=share, _progress={"done": done, "total": total, "unit": unit})

    def state(self, **fields: Any) -> None:
        """Update fields of the run's state."""
        with self._lock:
            self._fields.update(fields)

    def time(self, name: str) -> AbstractContextManager[None]:
        """Account the enclosed seconds to a name."""
        return self._clock.time(name)

    def begin(self) -> None:
        """Say that the stage's own work begins: from here on unnamed time is "other", no more "start-up"."""
        self._clock.base("other")

    def stop_requested(self) -> bool:
        """Whether a signal or the deadline asks for a clean stop."""
        return self._stop.requested()

    def input(self, kind: str, *, stage: str | None = None) -> Input:
        """Return the one input of a stage kind (and name)."""
        found = [i for i in self.order.inputs if i.kind == kind and stage in (None, i.stage)]
        if len(found) == 1:
            return found[0]
        given = ", ".join(f"{i.reference} ({i.kind})" for i in self.order.inputs) or "none"
        wanted = kind if stage is None else f"{kind} named {stage}"
        raise ConfigError(
            f"stage {self.order.stage} of {self.order.experiment} needs one input of kind {wanted}, "
            f"found {len(found)}; its inputs: {given}; correct its `needs`"
        )

    def write_state(self, status: Status, **fields: Any) -> None:
        """Write the state now; any but "running" is the last word, and ends the thread that writes it."""
        if self.attempt is None:
            return
        if status != "running":
            self._end_thread()
        with self._lock:
            own = {name: value for name, value in self._fields.items() if not name.startswith("_")}
        now = time.time()
        values: dict[str, Any] = {
            "attempt": self.attempt.number,
            "updated": now,
            "started": self._started,
            "finished": None if status == "running" else now,
            "device": self.numerics.device_name,
            "rss": gauges.rss(),
            "gpu_memory": gauges.gpu_memory(),
        }
        self._run.write_state(State(status=status, **(values | own | fields)))

    def sample(self) -> None:
        """Log memory and time so far."""
        values: dict[str, Any] = {"rss": gauges.peak_rss(), "gpu_memory": gauges.peak_gpu_memory()}
        use = gauges.gpu_utilisation()
        if use is not None:
            values["gpu_utilisation"] = use
        self.event("resource", foreign_cores=round(self._sharing.foreign_cores(), 3), **values)
        self.event("time", totals=self._clock.totals())

    def foreign_cores(self) -> float:
        """Return the mean number of cores that other processes used during this attempt."""
        return self._sharing.foreign_cores()

    def _keep(self) -> None:
        next_sample = time.monotonic() + SAMPLE_EVERY
        told = None
        while not self._closing.wait(STATE_EVERY):
            if self._lost():
                return
            # A full disk shows where the stage itself writes; telling about it must not end this thread.
            with suppress(DiskFullError, OSError):
                told = self._tell_progress(told)
                if time.monotonic() >= next_sample:
                    next_sample += SAMPLE_EVERY
                    self.sample()
                self.write_state("running")

    def _lost(self) -> bool:
        """Whether another worker took the run over, as from one taken for dead; then nothing more is written."""
        if self._claim is None:
            return False
        try:
            self._claim.check()
        except ClaimLost as error:
            self._stop.kind, self._stop.reason = "lost", str(error)
            return True
        except OSError:
            # The store may be out of reach for a moment; the next checkpoint looks again.
            return False
        return False

    def _tell_progress(self, told: Any) -> Any:
        with self._lock:
            now = self._fields.get("_progress")
        if now is not None and now != told:
            self.event("progress", **now)
        return now

    def close(self) -> None:
        """Stop the thread and close the events; the state stays as last written."""
        self._end_thread()
        if self._events is not None:
            with suppress(DiskFullError):
                self._events.close()

    def _end_thread(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

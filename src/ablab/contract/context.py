"""What a stage function may ask of the worker that runs it.

The worker implements it (`ablab.worker.context`); tasks and the training loop only see this protocol, so that they
can be driven by a test without a worker.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from ablab.contract.order import Input, Numerics, Order


class Context(Protocol):
    """The worker as seen by a stage function `run(order, context) -> Outcome`."""

    order: Order
    folder: Path
    numerics: Numerics

    @property
    def artifacts(self) -> Path:
        """Folder `artifacts/` of the run, created."""
        ...

    @property
    def checkpoints(self) -> Path:
        """Folder `checkpoints/` of the run, created."""
        ...

    def event(self, e: str, /, **values: Any) -> None:
        """Append an event (types in `ablab.contract.events`)."""
        ...

    def flush(self) -> None:
        """Bring the events so far to disk; called before a checkpoint that follows them becomes visible."""
        ...

    def progress(self, done: float, total: float, *, unit: str = "") -> None:
        """Say how much of the whole work is done; throttled, cheap."""
        ...

    def state(self, **fields: Any) -> None:
        """Update fields of the run's `State` (step, steps, loss, last, best, ...); throttled, cheap."""
        ...

    def time(self, name: str) -> AbstractContextManager[None]:
        """Account the enclosed seconds to a name of `ablab.contract.result.TIMES`; nesting pauses the outer name."""
        ...

    def stop_requested(self) -> bool:
        """Whether a signal or the deadline asks for a checkpoint and a clean stop."""
        ...

    def input(self, kind: str, *, stage: str | None = None) -> Input:
        """Return the one input of a stage kind (and name); ConfigError when there is none or more than one."""
        ...

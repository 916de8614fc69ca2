"""Kinds of failure and what the launcher does about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FailureKind = Literal[
    "out-of-memory",
    "memory-taken",
    "killed",
    "lost",
    "time-limit",
    "disk-full",
    "not-finite",
    "data",
    "config",
    "crash",
    "stopped",
]

#: Exit status of a worker process by how it ended; anything else is a crash, a negative one a signal.
EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, EXIT_CLAIMED = 0, 1, 3, 4

Action = Literal["shrink", "wait", "resume", "pause", "stop", "retry-once"]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What follows a failure: the action, and how often it may be repeated without progress."""

    action: Action
    attempts: int
    says: str


POLICIES: dict[FailureKind, Policy] = {
    "out-of-memory": Policy(action="shrink", attempts=16, says="halve the micro-batch, double the accumulation"),
    "memory-taken": Policy(action="wait", attempts=1000, says="wait for the other process, retry unchanged"),
    "killed": Policy(action="resume", attempts=3, says="resume from the last valid checkpoint"),
    "lost": Policy(action="resume", attempts=3, says="resume from the last valid checkpoint"),
    "time-limit": Policy(action="resume", attempts=3, says="resume from the last valid checkpoint"),
    "disk-full": Policy(action="pause", attempts=1000, says="pause, resume when space returns"),
    "not-finite": Policy(action="stop", attempts=0, says="stop, with the batch that did it"),
    "data": Policy(action="stop", attempts=0, says="stop, with file and row"),
    "config": Policy(action="stop", attempts=0, says="stop, with the key"),
    "crash": Policy(action="retry-once", attempts=1, says="once more, then stop"),
    "stopped": Policy(action="stop", attempts=0, says="stopped on request"),
}


class AblabError(Exception):
    """A failure with a cause a user can act on: shown as its message, never as a traceback.

    Args:
        message: where, what was found, what was expected, what to do.
        detail: values behind the message, kept in the failure's record.
    """

    kind: FailureKind = "config"

    def __init__(self, message: str, **detail: object) -> None:
        super().__init__(message)
        self.detail = detail


class ConfigError(AblabError):
    """Parameters that cannot work (a pattern that matches nothing, a layer that does not exist)."""

    kind: FailureKind = "config"


class DataError(AblabError):
    """A corrupt or missing piece of data; `detail` names `file` and `row`."""

    kind: FailureKind = "data"


class NotFiniteError(AblabError):
    """A loss or gradient that is not a number; `detail` names the `step` and the sample ids of the batch."""

    kind: FailureKind = "not-finite"


class OutOfMemoryError(AblabError):
    """Memory ran out in our own process, and a smaller micro-batch can help."""

    kind: FailureKind = "out-of-memory"


class DiskFullError(AblabError):
    """No space left where the store is."""

    kind: FailureKind = "disk-full"


class StopRequested(AblabError):
    """A clean stop was asked for (signal or deadline); a checkpoint has been written where one was possible."""

    kind: FailureKind = "stopped"

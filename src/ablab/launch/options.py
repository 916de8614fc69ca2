"""What a launch is asked for, what it says on the way, and what it sums up to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ablab.contract.failure import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED

NoticeKind = Literal[
    "launch",
    "started",
    "adopted",
    "watched",
    "finished",
    "failure",
    "failed",
    "waiting",
    "paused",
    "resumed",
    "blocked",
    "stopping",
    "stopped",
    "rehearsed",
    "ended",
    "tick",
]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `ablab run` may be told.

    Args:
        only: experiments (names or fnmatch patterns); None runs all.
        seeds: seeds; None runs all.
        devices: GPU indices, or "cpu"; None takes every GPU there is, else the CPU.
        slots: runs side by side, at most; never changes the threads of a run.
        until: Unix time by which everything has stopped.
        detach: go on in the background, out of reach of a hang-up.
        track: trackers the workers mirror events to.
        rehearse: rehearse each distinct configuration before the first long run.
        grace: seconds that workers have to write a checkpoint when asked to stop.
        address_space: bytes of address space of a worker, for tests of out-of-memory; None sets no limit.
        poll: seconds between looks at what sends no signal (runs of other launches, free disk, GPUs of others).
    """

    only: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    devices: tuple[int, ...] | str | None = None
    slots: int | None = None
    until: float | None = None
    detach: bool = False
    track: tuple[str, ...] = ()
    rehearse: bool = True
    grace: float = 60.0
    address_space: int | None = None
    poll: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that happened during a launch: for people its text, for machines the rest. `tick` has no text."""

    kind: NoticeKind
    text: str = ""
    run: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


OnEvent = Callable[[Notice], None]


@dataclass(frozen=True, kw_only=True)
class LaunchSummary:
    """What a launch came to. Runs are given by folder name, with a reason where one is needed.

    Args:
        launch: id of the launch.
        done: runs finished during the launch, by us or by another launch that shared the work.
        reused: runs that were done before.
        failed: run to message of its last failure.
        blocked: run to the failed or unresolved run it needs.
        stopped: runs that were stopped and go on at the next launch.
        left: run to the reason why it was not started.
        seconds: wall-clock time.
        pid: process of a detached launcher, which goes on.
        log: log file of a detached launcher.
    """

    launch: str
    done: tuple[str, ...] = ()
    reused: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)
    stopped: tuple[str, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    pid: int | None = None
    log: str | None = None

    @property
    def exit_code(self) -> int:
        """Exit status of `ablab run`: 0 when all is done, 1 when something failed, 3 when stopped on request."""
        if self.failed or self.blocked:
            return EXIT_FAILED
        return EXIT_STOPPED if self.stopped or self.left else EXIT_DONE

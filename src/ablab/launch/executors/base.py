"""The protocol of executors: start a worker on an order, tell when it ended, pass signals on.

An executor knows nothing of studies, policies or the store; it starts processes somewhere and keeps an eye on them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ablab.contract.failure import FailureKind
from ablab.contract.order import Resources


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a worker's process ended.

    Args:
        code: exit status, negative for a signal; None when nobody knows.
        kind: failure kind where the executor knows better than the process (a time limit, a lost node).
        message: for people, with `kind`.
    """

    code: int | None
    kind: FailureKind | None = None
    message: str = ""


@dataclass(eq=False, kw_only=True)
class Handle:
    """A worker that an executor started. `pid` is known where the process runs on this machine and has begun."""

    order: Path
    pid: int | None = None
    exit: Exit | None = None


@dataclass(frozen=True, kw_only=True)
class Program:
    """What the executor starts: arguments of Python for a worker (the order's path is added) and for the template.

    Args:
        worker: arguments that run one order.
        template: arguments of the warm template; None starts every worker cold.
        python: the interpreter.
    """

    worker: Sequence[str] = ("-m", "ablab.worker")
    template: Sequence[str] | None = ("-m", "ablab.worker.template")
    python: str = sys.executable

    def preloading(self, modules: Sequence[str]) -> Program:
        """Return the program with a template that imports these modules too."""
        return self if self.template is None else replace(self, template=(*self.template, *modules))

    def command(self, order: Path, *, processes: int = 1) -> list[str]:
        """Return the command line that runs `order`, through torchrun for several processes."""
        if processes == 1:
            return [self.python, *self.worker, str(order)]
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        return [self.python, *launcher, *self.worker, str(order)]


class Executor(Protocol):
    """Starts workers. `local` says whether they take this machine's cores and GPUs."""

    local: bool

    def start(self, order: Path, *, resources: Resources, env: Mapping[str, str]) -> Handle:
        """Start a worker on the order at this path.

        Args:
            order: absolute path of order.json in a run folder.
            resources: devices, threads and processes of the worker.
            env: variables of the worker, besides those of this process.

        Raises:
            ConfigError: the executor cannot start anything, and why.
        """
        ...

    def poll(self, handle: Handle) -> Exit | None:
        """Return how the worker ended; None while it goes on. Never blocks."""
        ...

    def signal(self, handle: Handle, number: int) -> None:
        """Send a signal to the worker, at once or as soon as it is there; SIGKILL ends all its processes."""
        ...

    def waitables(self) -> Sequence[int]:
        """Return file descriptors that become readable when a worker may have ended; empty where only time tells."""
        ...

    def close(self) -> None:
        """Let go of everything; workers that still run go on."""
        ...


def log_of(order: Path) -> Path:
    """Return `log.txt` of the attempt that an order is for."""
    attempt = json.loads(order.read_bytes())["attempt"]
    return order.parent / "attempts" / str(attempt) / "log.txt"

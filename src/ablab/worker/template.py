"""Warm workers: a process that has imported everything and forks a child for each order.

    python -m ablab.worker.template [MODULE ...]

Reads order paths on stdin, one a line; prints one JSON line when a child starts {"pid", "order"} and one when it ends
{"pid", "exit"} (a negative exit is a signal), and {"ready": pid} once. It runs no tensor operation and touches no
device: a child forked after a threaded product hangs. Children are sessions of their own and outlive this process,
which ends when stdin does.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

# As in __main__: before torch loads OpenMP.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

MODULES = (
    "torch",
    # Any optimizer imports the compiler front end when it is made: a second that workers need not pay each.
    "torch._dynamo",
    "numpy",
    "safetensors.torch",
    "ablab.training.loop",
    "ablab.worker.main",
    *(f"ablab.worker.stages.{kind}" for kind in ("prepare", "train", "evaluate", "probe", "select", "command")),
)


def main() -> int:
    """Serve orders until stdin closes."""
    for module in MODULES:
        importlib.import_module(module)
    for module in sys.argv[1:]:
        # A library that is not installed is the order's to report, where it is needed.
        with suppress(ImportError):
            importlib.import_module(module)
    # What is there now stays for good: the collector of a child must not touch, and so copy, its pages.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    Template(wake_read, wake_write).serve()
    return 0


class Template:
    """Reads orders, forks children, reports their ends."""

    def __init__(self, wake_read: int, wake_write: int) -> None:
        self._wake_read, self._wake_write = wake_read, wake_write
        self._text = b""

    def serve(self) -> None:
        """Serve until stdin closes."""
        self._say(ready=os.getpid())
        while True:
            readable, _, _ = select.select([0, self._wake_read], [], [])
            if self._wake_read in readable:
                with suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            self._reap()
            if 0 in readable and not self._read():
                return

    def _read(self) -> bool:
        """Take what stands on stdin; False at its end."""
        data = os.read(0, 65536)
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            if line.strip():
                self._start(os.fsdecode(line.strip()))
        return bool(data)

    def _start(self, order_path: str) -> None:
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            self._child(order_path, began)
        self._say(pid=pid, order=order_path)

    def _child(self, order_path: str, began: float) -> NoReturn:
        """Be the worker of one order; never returns into the template's loop."""
        code = 1
        try:
            os.setsid()
            self._detach(order_path)
            from ablab.worker.source import restart, wanted_source

            source = wanted_source(order_path)
            if source is not None:
                restart(order_path, source)
            from ablab.worker.main import execute

            code = execute(order_path, began=began, redirect=True)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _detach(self, order_path: str) -> None:
        """Leave the template's signals, stdin and stdout; print to the attempt's log."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.close(self._wake_read)
        os.close(self._wake_write)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.close(null)
        from ablab.store.layout import RunFolder
        from ablab.worker.main import read_order, redirect_output

        order = read_order(order_path)
        redirect_output(RunFolder(order.folder).attempt(order.attempt).create().log)

    def _reap(self) -> None:
        """Report every child that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._say(pid=pid, exit=os.waitstatus_to_exitcode(status))

    def _say(self, **values: Any) -> None:
        with suppress(BrokenPipeError):
            os.write(1, json.dumps(values).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())

"""Processes that help a merge: each opens the same files, and does the units it is handed.

They are spawned, since a fork of a process that has run threads can hang, and end with their parent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection

from ablab.contract.failure import AblabError, FailureKind
from ablab.merging.engine import Bench, Done, Unit

#: Makes a process's own bench, with files of its own; must be picklable.
Opens = Callable[[], Bench]
#: Entries below which helpers would not be there before the work is done.
WORTH = 100_000_000


class HelperLost(AblabError):
    """A helper process is gone: killed from outside, as a system short of memory does."""

    kind: FailureKind = "lost"


class Pool:
    """Helper processes; see `ablab.merging.engine.Helpers`."""

    def __init__(self, executor: ProcessPoolExecutor, count: int) -> None:
        self._executor, self.count = executor, count

    def submit(self, unit: Unit) -> Future[Done]:
        """Hand a unit to a helper; those that start for it begin with SIGTERM blocked, until they are ready."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            return self._executor.submit(_do, unit)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def helping(opens: Opens, count: int) -> Iterator[Pool | None]:
    """Yield `count` helpers, None where there are none; at the end they are gone.

    Raises:
        HelperLost: a helper was killed.
    """
    if count < 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(opens,))
    try:
        yield Pool(executor, count)
    except BrokenProcessPool as error:
        raise HelperLost(
            "a process that helped with the merge was killed or could not start; use fewer threads"
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


#: The bench of a helper process, set once when it starts.
_mine: list[Bench] = []


def _start(opens: Opens) -> None:
    """Prepare a helper: it leaves a stop to its parent and ends with it, even when that is killed."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    torch.set_num_threads(1)
    _mine[:] = [opens()]


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _do(unit: Unit) -> Done:
    return _mine[0].do(unit)

"""Going on in the background: a double fork into a session of its own, out of reach of the terminal's hang-up."""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from ablab.contract.failure import AblabError


def detach(work: Callable[[], int], *, log: Path) -> int:
    """Run `work` in a process that survives this one; return its process id at once.

    Args:
        work: what to do there; its value is the exit status.
        log: file that takes what it prints.

    Raises:
        AblabError: the background process could not be started.
    """
    receiver, sender = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    first = os.fork()
    if first == 0:
        _middle(work, log=log, sender=sender)
    os.close(sender)
    os.waitpid(first, 0)
    with os.fdopen(receiver, "rb") as pipe:
        told = pipe.read(4)
    if len(told) < 4:
        raise AblabError(f"the background launcher did not start; see {log}")
    return int(struct.unpack("i", told)[0])


def _middle(work: Callable[[], int], *, log: Path, sender: int) -> None:
    """The child: leave the terminal's session, fork the launcher, and end, so that nobody is its parent."""
    status = 1
    try:
        os.setsid()
        if os.fork() > 0:
            os._exit(0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _redirect(log)
        os.write(sender, struct.pack("i", os.getpid()))
        os.close(sender)
        status = work()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _redirect(log: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(output)

"""The hands of an executor on another machine: runs one worker there, hands signals on, and returns its exit status.

Imported by a cluster's own process (a SLURM job, a Ray actor), so it needs nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from ablab.contract.failure import EXIT_STOPPED

#: What a cluster sends to announce an end, and we to ask for one.
_HANDED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Remote:
    """One worker on this machine.

    Args:
        command: its command line.
        env: its variables, besides those of this process.
        log: file that takes its output.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: str) -> None:
        self._command, self._env, self._log = list(command), dict(env), Path(log)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False

    def run(self) -> int:
        """Run the worker to its end; return its exit status, negative for a signal."""
        with self._lock:
            if self._asked:
                return EXIT_STOPPED
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab") as output:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **self._env},
                    start_new_session=True,
                )
        return self._process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to the worker; before it has begun, any signal keeps it from beginning."""
        with self._lock:
            self._asked = True
            process = self._process
        if process is None or process.poll() is not None:
            return
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


def run_as_job(command: Sequence[str], env: Mapping[str, str], log: str) -> int:
    """Run a worker in the main thread of a batch job, handing on the signals the job gets; return its exit status."""
    remote = Remote(command, env, log)
    for number in _HANDED_ON:
        signal.signal(number, lambda number, _: remote.signal(number))
    return remote.run()

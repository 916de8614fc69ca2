"""The program of a command stage as a process: a group of its own, its output line by line, TERM and later KILL.

A supervisor (`ablab.worker.command.supervisor`) leads the group and kills it when this worker is gone. What an
earlier attempt may have left running is ended before a new one starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ablab.contract.failure import ConfigError
from ablab.store.files import CorruptFile, read_json, write_json
from ablab.store.processes import boot_id, host, process_start

#: Lines of the output kept for the record of a failure.
TAIL = 200
#: Bytes after which text without an end of line is taken as one.
_LONGEST = 1 << 16
#: Seconds to wait for what is killed, and for the last output of a program that has ended.
_PATIENCE = 5.0
_ENDS = re.compile(rb"[\r\n]")


class Process:
    """A running program.

    Args:
        command: program and arguments.
        folder: where it runs.
        env: its whole environment.
        record: file that says which process it is, for the next attempt.
        write: takes the output as it comes, to be logged.

    Raises:
        ConfigError: the program cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        env: Mapping[str, str],
        record: Path,
        write: Callable[[str], None],
    ) -> None:
        self.exit: int | None = None
        self.killed = False
        self.peak = 0
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._record, self._write = record, write
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._deadline: float | None = None
        life_read, self._life = os.pipe()
        self._status, status_write = os.pipe()
        os.set_inheritable(life_read, True)
        os.set_inheritable(status_write, True)
        supervisor = Path(__file__).with_name("supervisor.py")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(supervisor), str(life_read), str(status_write), *command],
                cwd=folder,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(life_read, status_write),
                process_group=0,
            )
        finally:
            os.close(life_read)
            os.close(status_write)
        write_json(record, _identity(self._process.pid), sync=False)
        self._reader = threading.Thread(target=self._read, name="ablab-output", daemon=True)
        self._reader.start()

    def lines(self) -> list[str]:
        """Return the lines of the output since the last call."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._lines.get_nowait())
        return found

    def wait(self, seconds: float) -> bool:
        """Wait that long at most for the program to end; return whether it has, with `exit` set.

        Raises:
            ConfigError: the program could not be started.
        """
        if self.exit is not None:
            return True
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.kill()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._end()
        return True

    def ask_to_stop(self, grace: float) -> None:
        """Send SIGTERM to the group; after `grace` seconds, `wait` kills it."""
        if self._deadline is None and self.exit is None:
            self._deadline = time.monotonic() + grace
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the group."""
        self.killed = True
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """End everything that is left of the group, and let go of it."""
        if self.exit is None:
            self.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
        for handle in (self._life, self._status):
            with contextlib.suppress(OSError):
                os.close(handle)
        self._life = self._status = -1
        self._reader.join(_PATIENCE)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()
        self._record.unlink(missing_ok=True)

    def _end(self) -> None:
        told = os.read(self._status, 65536)
        status = json.loads(told) if told else {"exit": -signal.SIGKILL}
        # What the program started and left behind has no business any more.
        self._signal(signal.SIGKILL)
        self._reader.join(_PATIENCE)
        self.exit = int(status.get("exit", 1))
        self.peak = int(status.get("rss", 0))
        if "error" in status:
            raise ConfigError(f"the program cannot be started: {status['error']}")

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _read(self) -> None:
        assert self._process.stdout is not None
        handle, rest = self._process.stdout.fileno(), b""
        while data := _read(handle):
            *lines, rest = _ENDS.split(rest + data)
            for line in lines:
                self._take(line)
            if len(rest) > _LONGEST:
                self._take(rest)
                rest = b""
        if rest:
            self._take(rest)

    def _take(self, line: bytes) -> None:
        text = line.decode("utf-8", errors="replace")
        self._write(text)
        if text.strip():
            self.tail.append(text)
            self._lines.put(text)


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 1 << 16)
    except OSError:
        return b""


def end_leftover(record: Path) -> bool:
    """Kill what an earlier attempt left running; return whether there was anything."""
    try:
        left = read_json(record)
        pid, start = int(left["pid"]), left["start"]
    except (FileNotFoundError, CorruptFile, KeyError, TypeError, ValueError):
        return False
    if left.get("host") != host() or left.get("boot") != boot_id() or process_start(pid) != start:
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    until = time.monotonic() + _PATIENCE
    while process_start(pid) == start and time.monotonic() < until:
        time.sleep(0.01)
    return True


def _identity(pid: int) -> dict[str, object]:
    return {"format": 1, "host": host(), "boot": boot_id(), "pid": pid, "start": process_start(pid)}

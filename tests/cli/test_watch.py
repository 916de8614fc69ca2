"""`ablab watch` on a real terminal: it draws, follows a resize, leaves on q or a signal, and restores the screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ablab.store.layout import Store
from tests.cli.conftest import Ablab
from tests.report.filled import STUDY, fill, frozen_launch, smoke

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


class Terminal:
    """A terminal with `ablab watch` in it."""

    def __init__(self, store: Path, *arguments: str, columns: int = 100, rows: int = 30) -> None:
        self.master, slave = pty.openpty()
        self.resize(columns, rows)
        variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ablab.cli.main", "watch", *arguments, "--store", str(store), "--every", "0.5"],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=variables | {"TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(slave)
        self.seen = b""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if hasattr(self, "process"):
            self.process.send_signal(signal.SIGWINCH)

    def read(self, *, until: bytes, seconds: float = 30.0) -> bytes:
        """Return what is written until these bytes come."""
        start, deadline = len(self.seen), time.monotonic() + seconds
        while until not in self.seen[start:]:
            assert time.monotonic() < deadline, self.seen[-2000:]
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 65536)
                except OSError:
                    break
        return self.seen[start:]

    def press(self, key: bytes) -> None:
        os.write(self.master, key)

    def end(self) -> tuple[int, bytes]:
        """Return exit status and all that was written, once the program has ended."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if select.select([self.master], [], [], 0.1)[0]:
                    self.seen += os.read(self.master, 65536)
            except OSError:
                break
            if self.process.poll() is not None and not select.select([self.master], [], [], 0.1)[0]:
                break
        return self.process.wait(10), self.seen


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Store(tmp_path_factory.mktemp("lab"))
    study = smoke()
    status = {("blind", 42, "train"): "failed", ("blind", 42, "evaluate"): "pending"}
    frozen_launch(made, study, fill(made, study, status=status))
    return made.root


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        if terminal.process.poll() is None:
            terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)


def text(data: bytes) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))


def test_it_draws_follows_a_resize_and_leaves_on_q(store: Path, terminals: list[Terminal]) -> None:
    terminal = Terminal(store, str(STUDY), "-p", "smoke")
    terminals.append(terminal)
    first = terminal.read(until=b"q leaves")
    assert ENTER in first
    assert "blocked: train failed" in text(first)
    assert "disk" in text(first)
    terminal.resize(44, 10)
    small = terminal.read(until=b"q leaves")
    last = text(small).rpartition("gpt-oelm")[2]
    assert max(len(line.rstrip("\r")) for line in last.split("\n")) <= 44
    assert last.count("\n") <= 10
    terminal.press(b"q")
    code, seen = terminal.end()
    assert code == 0
    assert seen.count(ENTER) == seen.count(LEAVE) == 1
    assert "1 failed" in text(seen.rpartition(LEAVE)[2])
    assert "Traceback" not in text(seen)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_the_screen_as_it_was(
    store: Path, terminals: list[Terminal], number: signal.Signals, code: int
) -> None:
    terminal = Terminal(store)
    terminals.append(terminal)
    terminal.read(until=b"q leaves")
    terminal.process.send_signal(number)
    status, seen = terminal.end()
    assert status == code
    assert seen.rstrip().endswith(LEAVE) or LEAVE in seen
    assert "Traceback" not in text(seen)


def test_without_a_terminal_lines_are_printed_and_it_ends(ablab: Ablab, store: Path) -> None:
    done = ablab("watch", str(STUDY), "-p", "smoke", "blind.none=1", code=2)
    assert "Traceback" not in done.stderr
    empty = ablab("watch")
    assert empty.stdout.strip().endswith("nothing has begun")

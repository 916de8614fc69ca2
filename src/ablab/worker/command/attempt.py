"""One attempt at a program: laid out, started, followed, stopped where that is asked for."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil

from ablab.contract.command import Command, Metrics
from ablab.contract.context import Context
from ablab.contract.failure import StopRequested
from ablab.contract.order import Order
from ablab.contract.task import usual_direction
from ablab.store.files import CorruptFile
from ablab.store.layout import RunFolder
from ablab.store.redact import known_secrets, redact
from ablab.worker.command.arguments import Values, environment
from ablab.worker.command.ledger import Ledger
from ablab.worker.command.process import Process, end_leftover
from ablab.worker.command.readings import Csv, Files, Follower, Json, Jsonl, Lines, Reading
from ablab.worker.command.workspace import Workspace

#: Seconds between looks at the program, and between looks at its files and its memory.
EVERY, FILES_EVERY = 0.1, 1.0
#: File in the run folder that says which process runs, and the one that `ablab.log` appends to.
RECORD, LOGGED = "command.json", "logged.jsonl"


class Attempt:
    """One attempt at a program.

    Args:
        order: the order.
        parameters: of its stage.
        context: the worker.
    """

    def __init__(self, order: Order, parameters: Command, context: Context) -> None:
        self.order, self.parameters, self.context = order, parameters, context
        self.values = Values(order, parameters, context)
        self.workspace = Workspace(
            order, parameters, run=context.folder, artifacts=context.artifacts, fill=self.values.fill
        )
        self.resumed: Path | None = None
        self._process: Process | None = None
        self._lines: list[Lines] = []
        self._files: list[Follower] = []
        self.peak = 0
        self._looked = 0.0
        self.secrets = known_secrets()

    @property
    def process(self) -> Process:
        """The running program."""
        assert self._process is not None
        return self._process

    def begin(self) -> None:
        """Lay out the working folder and start the program."""
        record = self.context.folder / RECORD
        if end_leftover(record):
            self._say("an earlier attempt's program was still running; it was killed")
        self.resumed = self._resume_file()
        if self.resumed is None:
            self.workspace.clear()
        self.workspace.lay_out()
        logged = self.context.folder / LOGGED
        if self.resumed is None:
            logged.unlink(missing_ok=True)
        self._open_followers(logged)
        command = self.values.command(*self._resume_arguments())
        told = None if self.resumed is None else self._told_before()
        self.ledger = Ledger(self.context, before=told, steps=self._steps(), direction=self.direction)
        self._say(f"command: {shlex.join(command)}")
        self._process = Process(
            command,
            folder=self.workspace.folder,
            env=environment(self.order, self.parameters, self.values, self.context, log=logged),
            record=record,
            write=self._log,
        )

    def follow(self) -> None:
        """Follow the program to its end, or to a stop that was asked for."""
        stopping = False
        while not self.process.wait(EVERY):
            self._look()
            if self.context.stop_requested() and not stopping:
                stopping = True
                self.process.ask_to_stop(self.parameters.grace)
        self._look(last=True)
        self.ledger.close()
        if stopping:
            how = "after SIGTERM" if not self.process.killed else f"by SIGKILL after {self.parameters.grace:g} s"
            goes_on = "it goes on from its last file" if self._can_resume() else "it starts at zero next time"
            raise StopRequested(f"the program was ended {how}; {goes_on}")

    def close(self) -> None:
        """End what is left of the program."""
        if self._process is not None:
            self._process.close()

    def command(self) -> list[str]:
        """Return program and arguments as they were started, without secrets."""
        clean: list[str] = redact(self.values.command(*self._resume_arguments()), secrets=self.secrets)
        return clean

    def direction(self, name: str) -> Literal["lower", "higher"]:
        """Return which way a metric is better."""
        return self.parameters.direction.get(name) or usual_direction(name)

    def _can_resume(self) -> bool:
        resume = self.parameters.resume
        return resume is not None and self.workspace.newest(resume.file) is not None

    # --- Beginning ----------------------------------------------------------------------------------------------

    def _resume_file(self) -> Path | None:
        """Return the file to resume from; None starts at zero."""
        if self.parameters.resume is None:
            return None
        file = self.workspace.newest(self.parameters.resume.file)
        if file is not None and self._last_resume_failed():
            self._say(f"the last attempt crashed when it resumed from {file.name}; starting at zero", level="warning")
            return None
        return file

    def _last_resume_failed(self) -> bool:
        """Whether the attempt before resumed, told nothing, and crashed: its file may be damaged."""
        run = RunFolder(self.context.folder)
        for number in reversed(run.attempts()):
            try:
                end = run.attempt(number).read_end()
            except CorruptFile:
                return False
            if end is not None:
                detail = end.get("detail") or {}
                return end.get("kind") == "crash" and bool(detail.get("resumed")) and not detail.get("told")
        return False

    def _resume_arguments(self) -> list[str]:
        resume = self.parameters.resume
        if self.resumed is None or resume is None:
            return []
        if self.parameters.shell:
            return [self.values.fill(resume.argument.replace("{file}", shlex.quote(str(self.resumed))))]
        return [
            self.values.fill(word).replace("\0", str(self.resumed))
            for word in shlex.split(resume.argument.replace("{file}", "\0"))
        ]

    def _steps(self) -> int:
        steps = self.parameters.steps
        value = self.values.own.get(steps) if isinstance(steps, str) else steps
        return value if isinstance(value, int) else 0

    def _told_before(self) -> list[Reading]:
        """Return what earlier attempts told, from their logs and the files they left, oldest first.

        Their events may lack the last of it, since a worker that is killed logs nothing more.
        """
        run = RunFolder(self.context.folder)
        found = []
        for number in run.attempts():
            with suppress(OSError), run.attempt(number).log.open(encoding="utf-8", errors="replace") as log:
                found += [reader.read(line) for line in log for reader in self._lines]
        files = [reading for follower in self._files for reading in follower.poll()]
        return [reading for reading in [*found, *files] if reading is not None]

    def _open_followers(self, logged: Path) -> None:
        told = next((source for source in self.parameters.metrics if source.logged), Metrics(logged=True))
        self._files.append(Files(lambda: [logged] if logged.exists() else [], _opener(told)))
        for source in self.parameters.metrics:
            if source.line is not None or source.regex is not None:
                self._lines.append(Lines(source))
            elif source.file is not None:
                self._files.append(Files(self._finder(source), _opener(source)))

    def _finder(self, source: Metrics) -> Callable[[], Iterable[Path]]:
        path = source.file or ""
        if source.tensorboard is None:
            return lambda: self.workspace.find(path)
        from ablab.worker.command.tensorboard import event_files

        return lambda: [file for folder in self.workspace.find(path) for file in event_files(folder)]

    # --- Following ----------------------------------------------------------------------------------------------

    def _look(self, *, last: bool = False) -> None:
        lines = self.process.lines()
        found = [reader.read(line) for line in lines for reader in self._lines]
        self.ledger.take(reading for reading in found if reading is not None)
        now = time.monotonic()
        if last or now - self._looked >= FILES_EVERY:
            self._looked = now
            for follower in self._files:
                self.ledger.take(follower.poll())
            self._measure(last=last)
        if last:
            self._say_skipped()

    def _say_skipped(self) -> None:
        skipped = sum(follower.skipped for follower in self._files)
        if skipped:
            self._say(f"{skipped} lines of the metric files could not be read", level="warning")

    def _measure(self, *, last: bool) -> None:
        """Note the memory of the program and all it started."""
        rss, self.peak = 0, max(self.peak, self.process.peak)
        for child in psutil.Process().children(recursive=True):
            try:
                rss += child.memory_info().rss
            except psutil.Error:
                continue
        grown = rss > self.peak
        self.peak = max(self.peak, rss)
        self.context.state(rss=rss)
        if last or grown:
            self.context.event("resource", rss=self.peak, gpu_memory=0)

    def _log(self, line: str) -> None:
        """Write a line of the output to the attempt's log, without secrets."""
        clean = redact(line, secrets=self.secrets)
        # A full disk must not leave the program waiting for somebody to read what it says.
        with suppress(OSError):
            sys.stdout.flush()
            os.write(1, f"{clean}\n".encode())

    def _say(self, text: str, *, level: str = "info") -> None:
        self.context.event("message", level=level, text=redact(text, secrets=self.secrets))


def _opener(source: Metrics) -> Callable[[Path], Follower]:
    def open_file(path: Path) -> Follower:
        if source.csv is not None:
            return Csv(path, source)
        if source.json_file is not None:
            return Json(path, source)
        if source.tensorboard is not None:
            from ablab.worker.command.tensorboard import EventFile

            return EventFile(path, source)
        return Jsonl(path, source)

    return open_file

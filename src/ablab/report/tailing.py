"""The losses and validation values of running runs, read from the ends of their event files as these grow."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence

from ablab.store.layout import RunFolder

#: Bytes of a file that are read when it is first looked at; a longer curve begins later.
FIRST = 4 * 2**20
#: Points of a curve that are kept; every other one goes when there are more.
POINTS = 2000


class Tails:
    """Reads what was appended to the events of runs since it last looked."""

    def __init__(self) -> None:
        self._runs: dict[str, _Tail] = {}

    def read(self, name: str, folder: RunFolder) -> None:
        """Take what a run has logged since; a run without events has none."""
        tail = self._runs.get(name)
        if tail is None:
            tail = self._runs[name] = _Tail(folder)
        tail.read()

    def keep(self, names: Iterable[str]) -> None:
        """Forget the runs that are shown no more, but for those held against."""
        wanted = set(names)
        for name in [name for name, tail in self._runs.items() if name not in wanted and not tail.compared]:
            del self._runs[name]

    def losses(self, name: str) -> Sequence[tuple[float, float]]:
        """Return (step, loss) of a run."""
        tail = self._runs.get(name)
        return () if tail is None else tail.losses

    def validations(self, name: str, metric: str) -> Mapping[int, float]:
        """Return a validation metric of a run by step."""
        tail = self._runs.get(name)
        if tail is None:
            return {}
        tail.compared = True
        return tail.values.get(metric, {})


class _Tail:
    """One run's events: of its newest attempt, continuing what earlier ones did up to where it resumed."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._path = ""
        self._offset, self._rest = 0, b""
        self.losses: list[tuple[float, float]] = []
        self.values: dict[str, dict[int, float]] = {}
        self.compared = False

    def read(self) -> None:
        attempts = self._folder.attempts()
        if not attempts:
            return
        path = str(self._folder.attempt(attempts[-1]).events)
        if path != self._path:
            if not self._path:
                for number in attempts[:-1]:
                    self._file(str(self._folder.attempt(number).events))
            self._file(path)
        else:
            self._more()

    def _file(self, path: str) -> None:
        self._path, self._offset, self._rest = path, 0, b""
        self._more()

    def _more(self) -> None:
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            size = os.fstat(handle).st_size
            if size < self._offset:
                self._offset, self._rest = 0, b""
            cut = self._offset == 0 and size > FIRST
            if cut:
                self._offset = size - FIRST
            while part := os.pread(handle, 2**20, self._offset):
                self._offset += len(part)
                *lines, self._rest = (self._rest + part).split(b"\n")
                for line in lines[1:] if cut else lines:
                    self._line(line)
                cut = False
        finally:
            os.close(handle)

    def _line(self, line: bytes) -> None:
        if b'"step"' not in line:
            return
        try:
            event = json.loads(line)
        except ValueError:
            return
        if not isinstance(event, dict) or not isinstance(step := event.get("step"), int):
            return
        kind = event.get("e")
        if kind == "start":
            # Later points of earlier attempts were done again.
            self.losses = [point for point in self.losses if point[0] <= step]
        elif kind == "step" and _finite(event.get("loss")):
            if self.losses and step <= self.losses[-1][0]:
                self.losses = [point for point in self.losses if point[0] < step]
            self.losses.append((float(step), float(event["loss"])))
            if len(self.losses) > POINTS:
                self.losses = self.losses[::2]
        elif kind == "validation" and isinstance(values := event.get("values"), dict):
            for metric, value in values.items():
                if _finite(value):
                    self.values.setdefault(metric, {})[step] = float(value)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

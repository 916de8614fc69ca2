"""What is wrong with a study file: each problem with file, line, path and the nearest valid name, all at once.

Finding problems is the business of the other files of this room; this one holds, words and shows them.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ablab.contract.failure import AblabError

#: Problems shown in a message; the rest is counted.
SHOWN = 40


class Mark(NamedTuple):
    """Where a value stands: file (or "command line"), line from 1 (None outside a file), and study path."""

    file: str
    line: int | None
    path: str

    def at(self, path: str) -> Mark:
        """Return this place with another path."""
        return Mark(self.file, self.line, path)

    def child(self, key: str | int) -> Mark:
        """Return this place with the path of a child."""
        return Mark(self.file, self.line, join(self.path, key))


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong: where, what was found, what was expected, and the nearest valid name."""

    file: str
    line: int | None
    path: str
    message: str
    suggestion: str | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        where = f"{place}: {self.path}: " if self.path else f"{place}: "
        hint = f" (did you mean {self.suggestion}?)" if self.suggestion else ""
        return f"{where}{self.message}{hint}"


class StudyError(AblabError):
    """A study file that cannot be used; `problems` holds every reason found, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"... and {len(self.problems) - SHOWN} more problems")
        super().__init__("\n".join(lines))


class Problems:
    """Collects problems; the same statement about the same line counts once."""

    def __init__(self) -> None:
        self._found: dict[Problem, None] = {}

    def add(self, mark: Mark, message: str, suggestion: str | None = None) -> None:
        """Note a problem at `mark`."""
        problem = Problem(file=mark.file, line=mark.line, path=mark.path, message=message, suggestion=suggestion)
        self._found.setdefault(problem)

    def include(self, others: Problems, *, note: str) -> None:
        """Take over what was found elsewhere and is new, with a note on where."""
        for problem in others._found:
            if problem not in self._found:
                inside = problem.path.startswith("profiles.")
                message = problem.message if inside else f"{problem.message} ({note})"
                self._found.setdefault(dataclasses.replace(problem, message=message))

    def __len__(self) -> int:
        return len(self._found)

    def check(self) -> None:
        """Raise `StudyError` when anything was found."""
        if self._found:
            raise StudyError(sorted(self._found, key=lambda problem: problem.line or 0))


def join(path: str, key: str | int) -> str:
    """Return the study path of a child: `a.b` for a key, `a[0]` for an item of a list."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the valid name most like `name`, or None when none is near."""
    candidates = list(dict.fromkeys(names))
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    if close:
        return close[0]
    folded = {_fold(candidate): candidate for candidate in candidates}
    close = difflib.get_close_matches(_fold(name), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def listed(names: Iterable[str], *, limit: int = 12) -> str:
    """Return names as a readable list, cut at `limit`."""
    names = list(names)
    more = f", ... ({len(names) - limit} more)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more if names else "none"


def shown(value: object, *, limit: int = 60) -> str:
    """Return a value as the study file would write it, for a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        text = "a mapping of " + listed(map(str, value), limit=4) if value else "an empty mapping"
    elif isinstance(value, (list, tuple)):
        text = f"a list of {len(value)}" if value else "an empty list"
    elif isinstance(value, str):
        text = f"the text {value!r}"
    else:
        text = str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _fold(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(".", "")

"""The journal of a study: `notes.jsonl` of its folder, one dated note a line, appended and never changed.

A note is about the study, an experiment, or one metric, and carries where the study stood when it was written. Whether
such an experiment or metric exists is for its writer to check; where notes are shown is the report's business.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ablab.store.lines import append_line, read_lines
from ablab.store.redact import redact

NoteKind = Literal["observation", "hypothesis", "issue", "next"]

KINDS: tuple[NoteKind, ...] = get_args(NoteKind)


@dataclass(frozen=True, kw_only=True)
class Note:
    """One entry.

    Args:
        time: Unix time of its writing.
        study, profile: what it is about.
        experiment, metric: narrows it to an arm, to a metric, or to one cell of the results.
        status: runs by where they stood then ({"done": 12, "running": 1}).
    """

    time: float
    kind: NoteKind
    text: str
    study: str = ""
    profile: str = ""
    experiment: str | None = None
    metric: str | None = None
    status: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the note as plain values."""
        return asdict(self)


def notes_path(folder: Path) -> Path:
    """Return the journal of a study's folder (`Store.study_folder`)."""
    return folder / "notes.jsonl"


def append_note(
    folder: Path,
    text: str,
    *,
    kind: NoteKind = "observation",
    study: str = "",
    profile: str = "",
    experiment: str | None = None,
    metric: str | None = None,
    status: Mapping[str, int] | None = None,
    now: float | None = None,
) -> Note:
    """Write a note and return it as it was written: secrets in it are hidden.

    Raises:
        DiskFullError: no space is left; nothing was written.
    """
    note = Note(
        time=time.time() if now is None else now,
        kind=kind,
        text=redact(text.strip()),
        study=study,
        profile=profile,
        experiment=experiment,
        metric=metric,
        status=dict(status or {}),
    )
    append_line(notes_path(folder), note.as_json(), sync=True)
    return note


def read_notes(folder: Path, *, problems: list[str] | None = None) -> list[Note]:
    """Return the notes of a study, oldest first; none where nobody wrote any.

    Args:
        folder: the study's folder.
        problems: when given, a line that is no note is skipped and described here instead of raising.

    Raises:
        CorruptFile: a line that is no JSON object; the message names file and line.
    """
    found = [note for line in read_lines(notes_path(folder), problems=problems) if (note := _note(line)) is not None]
    return sorted(found, key=lambda note: note.time)


def _note(line: Mapping[str, Any]) -> Note | None:
    """Return a line as a note; None where it says nothing. A kind that nobody knows is an observation."""
    text, moment, kind = line.get("text"), line.get("time"), line.get("kind")
    if not isinstance(text, str) or not text or not isinstance(moment, int | float):
        return None
    status = line.get("status")
    return Note(
        time=float(moment),
        kind=next((known for known in KINDS if known == kind), "observation"),
        text=text,
        study=str(line.get("study") or ""),
        profile=str(line.get("profile") or ""),
        experiment=_name(line.get("experiment")),
        metric=_name(line.get("metric")),
        status={str(k): v for k, v in status.items() if isinstance(v, int)} if isinstance(status, Mapping) else {},
    )


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None

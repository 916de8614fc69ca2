"""The journal: dated notes of people, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablab.report.document import Block, Bullets, Cell, Section, table, without_empty
from ablab.report.words import NOTES, STATUSES, word

if TYPE_CHECKING:
    from ablab.report.view import View
    from ablab.store.notes import Note


def section(view: View) -> Section:
    """Return every note, oldest first, with what it is about and where things stood."""
    t = view.t
    rows = [
        (
            t.when(note.time),
            word(t, NOTES, note.kind),
            Cell(text=note.experiment or t("study"), link=view.anchor(note.experiment or "")),
            note.metric or "",
            Cell(text=note.text, foreign=True),
            t.list([f"{t.count(count)} {word(t, STATUSES, status)}" for status, count in note.status.items()]),
        )
        for note in view.notes
    ]
    columns = (t("time"), t("kind"), t("about"), t("metric"), t("note"), t("status then"))
    return Section(id="notes", title=t("Notes"), blocks=(without_empty(table(columns, rows)),) if rows else ())


def about(view: View, experiment: str) -> list[Block]:
    """Return the notes on one experiment as a list; nothing where there is none."""
    found = [note for note in view.notes if note.experiment == experiment]
    return [Bullets(items=tuple(stamped(view, note) for note in found))] if found else []


def stamped(view: View, note: Note) -> str:
    """Return a note as a sentence with its date and kind."""
    metric = f" [{note.metric}]" if note.metric else ""
    return f"{view.t.when(note.time)}, {word(view.t, NOTES, note.kind)}{metric}: {note.text}"

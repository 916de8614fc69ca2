"""What went wrong, and what was done about it, by itself or by a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablab.report.document import Cell, Section, Text, table, without_empty
from ablab.report.words import FAILURES, word

if TYPE_CHECKING:
    from ablab.report.view import View


def section(view: View) -> Section:
    """Return every failure with its resolution, and the issues people noted, by time."""
    t = view.t
    rows: list[tuple[float, tuple[Cell | str, ...]]] = []
    for record in view.results.runs.values():
        for issue in record.issues:
            when = issue.get("time")
            moment = float(when) if isinstance(when, int | float) else None
            rows.append(
                (
                    moment or 0.0,
                    (
                        t.when(moment),
                        Cell(text=_arm(record.users), link=view.anchor(_arm(record.users))),
                        "" if record.seed is None else str(record.seed),
                        Cell(text=record.name, code=True),
                        word(t, FAILURES, str(issue.get("kind", ""))),
                        Cell(text=str(issue.get("message", "")), foreign=True),
                        Cell(text=str(issue.get("resolution", "")), foreign=True),
                    ),
                )
            )
    for note in view.notes:
        if note.kind == "issue":
            about = Cell(text=note.experiment or "", link=view.anchor(note.experiment or ""))
            rows.append((note.time or 0.0, (t.when(note.time), about, "", "", t("noted"), note.text, "")))
    if not rows:
        return Section(id="issues", title=t("Issues and resolutions"), blocks=(Text(text=t("Nothing went wrong.")),))
    columns = (t("time"), t("experiment"), t("seed"), t("run"), t("kind"), t("issue"), t("resolution"))
    ordered = [cells for _, cells in sorted(rows, key=lambda pair: pair[0])]
    return Section(
        id="issues", title=t("Issues and resolutions"), blocks=(without_empty(table(columns, ordered, numeric=(2,))),)
    )


def _arm(users: tuple[tuple[str, int], ...]) -> str:
    return users[0][0] if users else ""

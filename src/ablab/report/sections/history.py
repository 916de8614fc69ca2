"""Every verdict that was ever given, with its date and seeds: a verdict that changed is not hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ablab.report.document import Cell, Folded, Section, table, without_empty
from ablab.report.words import TONES, VERDICTS, word

if TYPE_CHECKING:
    from ablab.report.view import View

_MOST = 200


def section(view: View) -> Section:
    """Return the kept verdicts, newest first."""
    t = view.t
    rows: list[tuple[Cell | str, ...]] = []
    for line in reversed(view.history):
        when = line.get("time")
        for variant in line.get("variants") or ():
            first: dict[str, Any] = next(iter(variant.get("conditions") or ()), {})
            said = str(variant.get("verdict", ""))
            rows.append(
                (
                    t.when(when if isinstance(when, int | float) else None),
                    str(line.get("comparison", "")),
                    Cell(text=str(variant.get("experiment", "")), link=view.anchor(str(variant.get("experiment", "")))),
                    Cell(text=word(t, VERDICTS, said), tone=TONES.get(said, "plain")),
                    t.figure(first.get("point")),
                    "—" if first.get("low") is None else f"{t.figure(first['low'])} – {t.figure(first['high'])}",
                    ", ".join(map(str, variant.get("seeds") or ())),
                )
            )
    if not rows:
        return Section(id="history", title=t("History of verdicts"), blocks=())
    columns = (t("time"), t("comparison"), t("arm"), t("verdict"), t("estimate"), t("interval"), t("seeds"))
    title = t.n("{n} verdict was kept", "{n} verdicts were kept", len(rows))
    whole = without_empty(table(columns, rows[:_MOST], numeric=(4, 5)))
    return Section(id="history", title=t("History of verdicts"), blocks=(Folded(title=title, blocks=(whole,)),))

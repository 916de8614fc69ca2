"""What the audits say: open findings first, then those the author accepted with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablab.report.document import Block, Cell, Folded, Heading, Section, Text, table, without_empty
from ablab.report.words import FINDINGS, SEVERITIES, SEVERITY_TONES, word

if TYPE_CHECKING:
    from ablab.contract.finding import Finding
    from ablab.report.view import View

_ORDER = {"error": 0, "warning": 1, "note": 2}


def section(view: View) -> Section:
    """Return findings: open errors and warnings, notes folded, accepted ones with their reason, unchecked ones."""
    t = view.t
    found = sorted(view.findings, key=lambda item: _ORDER[item.severity])
    open_ = [item for item in found if item.accepted is None and item.checked]
    telling = [item for item in open_ if item.severity != "note"]
    notes = [item for item in open_ if item.severity == "note"]
    accepted = [item for item in found if item.accepted is not None]
    unchecked = [item for item in found if item.accepted is None and not item.checked]
    blocks: list[Block] = []
    if telling:
        blocks += [Heading(text=t("Open")), _table(view, telling)]
    elif not found:
        blocks.append(Text(text=t("No finding.")))
    if accepted:
        blocks += [Heading(text=t("Accepted by the author, with the reason")), _table(view, accepted)]
    if notes:
        blocks.append(Folded(title=t.n("{n} note", "{n} notes", len(notes)), blocks=(_table(view, notes),)))
    if unchecked:
        title = t.n("{n} check lacks a fact", "{n} checks lack a fact", len(unchecked))
        blocks.append(Folded(title=title, blocks=(_table(view, unchecked),)))
    return Section(id="findings", title=t("Findings"), blocks=tuple(blocks))


def _table(view: View, found: list[Finding]) -> Block:
    t = view.t
    rows = [
        (
            Cell(text=word(t, FINDINGS, item.id), note=item.id),
            _severity(view, item),
            Cell(text=item.message, foreign=True),
            Cell(text=item.accepted or item.remedy, foreign=item.accepted is None),
            item.where + (", " + t("line {line}", line=item.line) if item.line else ""),
        )
        for item in found
    ]
    last = t("reason") if any(item.accepted for item in found) else t("remedy")
    return without_empty(table((t("finding"), t("severity"), t("what was found"), last, t("where")), rows))


def _severity(view: View, item: Finding) -> Cell:
    t = view.t
    if item.accepted is not None:
        return Cell(text=t("accepted ({severity})", severity=word(t, SEVERITIES, item.severity)))
    if not item.checked:
        return Cell(text=t("not checked"))
    return Cell(text=word(t, SEVERITIES, item.severity), tone=SEVERITY_TONES.get(item.severity, "plain"))

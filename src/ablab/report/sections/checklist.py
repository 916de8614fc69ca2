"""The checklist of models and data sets: which sizes the study expects, and what was found on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ablab.contract.failure import AblabError
from ablab.contract.units import size
from ablab.report.document import Block, Cell, Section, Text, table, without_empty
from ablab.store.files import read_json

if TYPE_CHECKING:
    from ablab.contract.checklist import Expected
    from ablab.report.view import View


def section(view: View) -> Section:
    """Return every entry with expected and found sizes, ticked where it is as expected; none without a checklist."""
    t = view.t
    if not view.study.checklist:
        return Section(id="checklist", title=t("Models and data sets"), blocks=())
    when, found = _looked(view)
    rows = [_row(view, entry, found.get((entry.kind, entry.name))) for entry in view.study.checklist]
    columns = (t("name"), t("kind"), t("for"), t("expected"), t("found"), t("state"), t("what to do"))
    ticked = sum(bool(item.get("ok")) for item in (found.get((e.kind, e.name), {}) for e in view.study.checklist))
    caption = t("{done} of {all} are here as expected", done=t.count(ticked), all=t.count(len(rows)))
    blocks: list[Block] = [without_empty(table(columns, rows, caption=caption, numeric=(3, 4)))]
    said = (
        t(
            "Looked at {when}; `ablab fetch` downloads and verifies, `ablab fetch --check` looks again.",
            when=t.when(when),
        )
        if when is not None
        else t("Not looked at yet: `ablab fetch --check` says what is here, `ablab fetch` downloads and verifies.")
    )
    blocks.append(Text(text=said, small=True))
    return Section(id="checklist", title=t("Models and data sets"), blocks=tuple(blocks))


def _looked(view: View) -> tuple[float | None, dict[tuple[str, str], Mapping[str, Any]]]:
    """Return when the checklist was held against the machine, and what was found by (kind, name)."""
    try:
        record = read_json(view.store.checklist(view.study.name, view.study.profile))
        return record["time"], {(item["kind"], item["name"]): item for item in record["items"]}
    except (FileNotFoundError, AblabError, KeyError, TypeError):
        return None, {}


def _row(view: View, entry: Expected, found: Mapping[str, Any] | None) -> tuple[Cell | str, ...]:
    t = view.t
    states = {
        "present": t("here"), "fetched": t("fetched"), "other size": t("another size"), "missing": t("missing"),
        "gated": t("gated"), "damaged": t("damaged"), "out of reach": t("out of reach"),
    }  # fmt: skip
    kinds = {"dataset": t("data set"), "model": t("model"), "file": t("file"), "folder": t("folder")}
    status = "" if found is None else str(found.get("status", ""))
    good = found is not None and bool(found.get("ok"))
    state = Cell(text=states.get(status, t("not looked at")), tone="good" if good else "bad" if found else "open")
    return (
        Cell(text=entry.name, code=True),
        kinds.get(entry.kind, t("bundled")),
        Cell(text=entry.purpose, foreign=True),
        _sizes(view, entry.rows, entry.bytes),
        "" if found is None else _sizes(view, found.get("rows"), found.get("bytes") or None),
        state,
        Cell(text="" if found is None or good else str(found.get("remedy", "")), foreign=True),
    )


def _sizes(view: View, rows: int | None, count: int | None) -> str:
    t = view.t
    told = [] if rows is None else [t.n("{n} row", "{n} rows", rows)]
    return ", ".join(told + ([] if count is None else [size(count)]))

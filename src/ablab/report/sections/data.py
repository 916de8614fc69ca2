"""The data sets a study reads: what, from where, how large, and whether it is there and counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ablab.contract.units import size
from ablab.report.document import Block, Cell, Section, table, without_empty

if TYPE_CHECKING:
    from ablab.analysis.results import RunRecord
    from ablab.report.view import View

_KINDS = ("documents", "samples", "rows", "tokens", "words", "bytes")


def section(view: View) -> Section:
    """Return a checklist of data references, and what prepared data holds by split."""
    t = view.t
    rows = list(_references(view))
    blocks: list[Block] = []
    if rows:
        columns = (t("data"), t("kind"), t("read by"), t("revision"), t("size"), t("state"))
        caption = t("Ticked: the run that reads it is done")
        blocks.append(without_empty(table(columns, rows, caption=caption, numeric=(4,))))
    counted = _counts(view)
    if counted is not None:
        blocks.append(counted)
    return Section(id="data", title=t("Data"), blocks=tuple(blocks))


def _references(view: View) -> Iterator[tuple[Cell | str, ...]]:
    """Yield one row a reference; equal ones of several runs once."""
    t = view.t
    found: dict[tuple[str, str], list[tuple[str, RunRecord]]] = {}
    details: dict[tuple[str, str], Any] = {}
    for key, run in view.plan.runs.items():
        record = view.results.runs.get(key)
        references = run.stage.spec.references
        if references is None or record is None:
            continue
        for reference in references(run.stage.sections, run.stage.parameters):
            place = (reference.kind, reference.name)
            details[place] = reference
            found.setdefault(place, []).append((run.experiment, record))
    for (kind, name), users in found.items():
        done = [record for _, record in users if record.done]
        arms = list(dict.fromkeys(arm for arm, _ in users))
        reference = details[kind, name]
        state = (
            Cell(text=t("read"), tone="good")
            if len(done) == len(users)
            else Cell(text=t("read by {done} of {all}", done=len(done), all=len(users)), tone="open")
        )
        note = t("gated: needs a licence and a token") if reference.gated else ""
        yield (
            Cell(text=name, note=note),
            _kind(view, kind),
            t.list(arms[:4]) + (" …" if len(arms) > 4 else ""),
            reference.revision or "",
            _bytes(done),
            state,
        )


def _kind(view: View, kind: str) -> str:
    t = view.t
    names = {"file": t("file"), "folder": t("folder"), "bundled": t("bundled"), "hub": t("hub")}
    return names.get(kind, kind)


def _bytes(done: list[RunRecord]) -> str:
    """Return the bytes of a data set as the run that prepared it counted them."""
    for record in done:
        counts = [value for name, value in record.facts.items() if name.startswith("bytes.") and _number(value)]
        if counts:
            return size(sum(counts))
        whole = sum(record.artifacts.values())
        if record.kind == "prepare" and whole:
            return size(whole)
    return ""


def _counts(view: View) -> Block | None:
    """Return documents, tokens, words and bytes of each split of prepared data."""
    t = view.t
    names = {
        "documents": t("documents"), "samples": t("samples"), "rows": t("rows"), "tokens": t("tokens"),
        "words": t("words"), "bytes": t("bytes"),
    }  # fmt: skip
    rows: list[tuple[Cell | str, ...]] = []
    for record in view.results.runs.values():
        splits = dict.fromkeys(
            name.partition(".")[2] for name in record.facts if name.partition(".")[0] in _KINDS and "." in name
        )
        counted = [split for split in splits if _number(record.facts.get(f"tokens.{split}"))]
        if record.kind != "prepare" or not counted:
            continue
        source = record.facts.get("source")
        named = source.get("name") if isinstance(source, Mapping) else source
        for split in counted:
            rows.append(
                (
                    str(named or record.stage),
                    split,
                    *(_count(view, record.facts.get(f"{kind}.{split}")) for kind in _KINDS),
                    Cell(text=record.name, code=True),
                )
            )
    if not rows:
        return None
    columns = (t("data"), t("split"), *(names[kind] for kind in _KINDS), t("run"))
    return without_empty(table(columns, rows, caption=t("What prepared data holds"), numeric=range(2, 8)))


def _count(view: View, value: object) -> str:
    return view.t.count(round(value)) if isinstance(value, int | float) else ""


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

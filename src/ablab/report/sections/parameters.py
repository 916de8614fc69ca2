"""Parameters and memory: what each arm holds, what of it trains, what it leaves on disk and takes of memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ablab.contract.units import size
from ablab.report.document import Block, Cell, Section, table, without_empty

if TYPE_CHECKING:
    from ablab.analysis.results import RunRecord
    from ablab.report.view import View

#: Parts of a model that get a column each.
_PARTS = 8


def section(view: View) -> Section:
    """Return one row an arm, from the facts of its last stage that trains; of one that has none, of its last."""
    t = view.t
    found = {name: _last(view, name) for name in view.study.experiments}
    known = {name: record for name, record in found.items() if record is not None}
    if not known:
        return Section(id="parameters", title=t("Parameters and memory"), blocks=())
    parts = list(
        dict.fromkeys(part for record in known.values() for part in record.facts.get("parameters.parts") or {})
    )[:_PARTS]
    rows = [_row(view, name, record.stage, record.facts, parts) for name, record in known.items()]
    columns = (
        t("experiment"), t("stage"), t("parameters"), t("trained"), t("frozen"), t("trained share"),
        *(t("{part}: trained of all", part=part) for part in parts),
        t("precision"), t("micro-batch"), t("initial logit scale"), t("checkpoint"), t("peak memory"), t("GPU memory"),
    )  # fmt: skip
    whole: Block = without_empty(table(columns, rows, numeric=range(2, len(columns))))
    return Section(id="parameters", title=t("Parameters and memory"), blocks=(whole,))


def _row(view: View, name: str, stage: str, found: Mapping[str, Any], parts: list[str]) -> tuple[Cell | str, ...]:
    t = view.t
    total, trained = found.get("parameters.total") or 0, found.get("parameters.trained")
    by_part = found.get("parameters.parts") or {}
    records = view.own(name)
    checkpoint = max((record.artifacts.get("last", 0) for record in records), default=0)
    return (
        Cell(text=name, link=view.anchor(name)),
        stage,
        t.count(int(total)),
        "" if trained is None else t.count(int(trained)),
        t.count(int(found["parameters.frozen"])) if "parameters.frozen" in found else "",
        t.percent(trained / total, digits=1) if total and trained is not None else "",
        *(_part(view, by_part.get(part)) for part in parts),
        str(found.get("precision") or ""),
        str(found.get("micro_batch") or ""),
        t.figure(found["logits.scale"], digits=3) if isinstance(found.get("logits.scale"), int | float) else "",
        size(checkpoint) if checkpoint else "",
        size(max((record.peak.get("rss", 0) for record in records), default=0) or None),
        size(max((record.peak.get("gpu", 0) for record in records), default=0) or None),
    )


def _part(view: View, part: object) -> str:
    if not isinstance(part, Mapping):
        return ""
    return f"{view.t.count(int(part.get('trained', 0)))} / {view.t.count(int(part.get('total', 0)))}"


def _last(view: View, name: str) -> RunRecord | None:
    """Return the last run of an arm that tells what trained, or else how large the model is."""
    told = [record for record in view.records(name) if "parameters.total" in record.facts]
    trained = [record for record in told if "parameters.trained" in record.facts]
    return next(reversed(trained or told), None)

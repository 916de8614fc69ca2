"""Each experiment by itself: purpose, what differs, result, gap to its baseline, notes, evaluations, runs, commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ablab.contract.units import duration, size
from ablab.report.document import (
    Block,
    Bullets,
    Cell,
    Code,
    Facts,
    Folded,
    Heading,
    Section,
    Text,
    table,
    without_empty,
)
from ablab.report.sections import notes
from ablab.report.sections.evaluations import Allowance
from ablab.report.sections.evaluations import blocks as evaluations
from ablab.report.sections.matrix import differing
from ablab.report.sections.results import heading, mean_text
from ablab.report.wording import answer, control_answer
from ablab.report.words import STATUS_TONES, STATUSES, word

if TYPE_CHECKING:
    from ablab.report.view import View

#: Experiments told one by one; a matrix of thousands is read in its tables.
_MOST = 300


def section(view: View) -> Section:
    """Return one folded part an experiment, in the order of the study."""
    t = view.t
    allowance = Allowance()
    names = list(view.study.experiments)
    blocks: list[Block] = [_experiment(view, name, allowance) for name in names[:_MOST]]
    if len(names) > _MOST:
        blocks.append(Text(text=t("{count} more are told by the tables alone.", count=t.count(len(names) - _MOST))))
    return Section(id="arms", title=t("Experiments, one by one"), blocks=tuple(blocks))


def _experiment(view: View, name: str, allowance: Allowance) -> Block:
    t = view.t
    experiment = view.study.experiments[name]
    status = word(t, STATUSES, view.status(name))
    title = " · ".join(part for part in (name, experiment.label, status) if part)
    facts = [
        (t("purpose"), experiment.purpose),
        (t("differs in"), differing(view, name)),
        (t("result"), result(view, name)),
    ]
    blocks: list[Block] = [Facts(items=tuple((key, text) for key, text in facts if text))]
    said = tuple(gaps(view, name))
    if said:
        blocks.append(Bullets(items=said))
    broken = [arm for arm in view.results.arms if arm.experiment == name and arm.message]
    blocks += [Text(text=f"{t('seed {seed}', seed=arm.seed)}: {arm.message}", tone="bad") for arm in broken]
    written = notes.about(view, name)
    if written:
        blocks += [Heading(text=t("Notes"), level=4), *written]
    blocks += _metrics(view, name)
    blocks += evaluations(view, name, allowance)
    blocks += _runs(view, name)
    return Folded(title=title, blocks=tuple(blocks), id=view.anchor(name))


def result(view: View, name: str) -> str:
    """Return the compared metrics of an arm in a sentence: mean, interval, seeds, reference beside it."""
    t = view.t
    asked = dict.fromkeys(
        (item.metric.partition("@")[0], item.at) for item in view.study.comparisons if name in item.arms
    )
    references = view.references.get(name, {})
    found = []
    for metric, at in asked:
        text, n, _ = mean_text(view, name, metric, at)
        if not n:
            continue
        said = f"{heading(view, metric, at)} {text} (n = {n})"
        for reference in references.get(metric, ()):
            where = "; ".join(part for part in (reference.source, reference.note) if part)
            said += "; " + t("reference {value} ({source})", value=reference.text(t.figure), source=where)
        found.append(said)
    return "; ".join(found)


def gaps(view: View, name: str) -> Iterator[str]:
    """Yield what each comparison says of the arm: its gap to the baseline and the verdict."""
    for verdict in view.verdicts:
        said = [answer(view, variant, verdict) for variant in verdict.variants if variant.experiment == name]
        said += [control_answer(view, control, verdict) for control in verdict.controls if control.experiment == name]
        for each in said:
            role = f" ({each.role})" if each.role else ""
            yield f"{verdict.comparison}{role}: {each.word}. {each.sentence}"


def _metrics(view: View, name: str) -> list[Block]:
    """Return every metric of the arm by seed, each with the run it comes from."""
    t = view.t
    arms = [arm for arm in view.results.arms if arm.experiment == name and arm.values]
    metrics = list(dict.fromkeys(metric for arm in arms for metric in arm.values))
    if not metrics:
        return []
    rows: list[tuple[Cell | str, ...]] = []
    for arm in arms:
        for metric in metrics:
            value = arm.values.get(metric)
            if value is None or value.last is None:
                continue
            record = view.results.runs.get(value.key)
            best = "" if value.best is None else t.figure(value.best)
            rows.append(
                (
                    heading(view, metric) if not metric.startswith("train/") else metric,
                    str(arm.seed),
                    Cell(text=t.figure(value.last), note=t("so far") if value.partial else ""),
                    f"{best} @{value.best_step}" if best and value.best_step is not None else best,
                    Cell(text="" if record is None else record.name, code=True),
                )
            )
    columns = (t("metric"), t("seed"), t("last"), t("best"), t("run"))
    return [Folded(title=t("Every metric by seed"), blocks=(without_empty(table(columns, rows, numeric=(1, 2, 3))),))]


def _runs(view: View, name: str) -> list[Block]:
    """Return the runs of the arm with the exact command of each step."""
    t = view.t
    records = view.records(name)
    if not records:
        return []
    rows = [
        (
            Cell(text=record.name, code=True),
            record.stage,
            "—" if record.seed is None else str(record.seed),
            Cell(text=word(t, STATUSES, record.status), tone=STATUS_TONES.get(record.status, "plain")),
            duration(view.forecast(record)),
            duration(record.wall),
            size(sum(record.artifacts.values()) or None),
            t.list(sorted({user for user, _ in record.users} - {name})[:4]),
        )
        for record in records
    ]
    columns = (
        t("run"), t("stage"), t("seed"), t("status"), t("forecast"), t("actual"), t("output"), t("shared with"),
    )  # fmt: skip
    lines = [
        f"python -m ablab.worker {view.store.run(record.name).order_path}"
        for record in records
        if record.status not in ("pending", "planned", "unresolved")
    ]
    blocks: list[Block] = [without_empty(table(columns, rows, numeric=(2, 4, 5, 6)))]
    if lines:
        blocks.append(Code(text="\n".join(lines), language="sh"))
    return [Folded(title=t("Runs and the exact command of each step"), blocks=tuple(blocks))]

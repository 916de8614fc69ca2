"""The execution plan: what is done and left, durations and dependencies, the critical path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablab.contract.units import duration, percent, size
from ablab.plan.describe import DAY, step_of
from ablab.report.document import Block, Bullets, Cell, Folded, Section, Text, table, without_empty
from ablab.report.gates import gates
from ablab.report.sections.next_steps import shortened
from ablab.report.words import STATUS_TONES, STATUSES, word

if TYPE_CHECKING:
    from ablab.report.view import View

#: Runs of the table; a larger plan is listed by `ablab plan`.
_MOST = 1000


def section(view: View) -> Section:
    """Return the plan in a few lines and every run with what it waits for."""
    t = view.t
    plan = view.plan
    counts = view.counts
    states = t.list([f"{t.count(number)} {word(t, STATUSES, status)}" for status, number in counts.items()])
    items = [
        t("{runs} runs of {arms} experiments: {states}", runs=t.count(len(plan.runs)), arms=_arms(view), states=states)
    ]
    if plan.seconds_left:
        items.append(t("about {time} left", time=duration(plan.seconds_left)))
        saved = (plan.seconds_without_sharing or 0.0) - plan.seconds_left
        if saved >= 1:
            items.append(t("sharing runs between arms saves {time}", time=duration(saved)))
            items += _device_days(view)
    if plan.unknown:
        items.append(t.n("{n} run of unknown length", "{n} runs of unknown length", plan.unknown))
    if plan.critical_path and plan.critical_seconds:
        names = [step_of(plan.runs[key]) for key in plan.critical_path if key in plan.runs]
        items.append(t("critical path: {path} ({time})", path=" → ".join(names), time=duration(plan.critical_seconds)))
    if plan.bytes_left:
        items.append(t("{size} of disk to come", size=size(plan.bytes_left)))
    unresolved = list(dict.fromkeys(name for run in plan.runs.values() for name in run.unresolved))
    if unresolved:
        items.append(t("not resolved, so never started: {names}", names=shortened(view, unresolved)))
    items += gates(view)
    blocks: list[Block] = [Bullets(items=tuple(items))]
    if plan.runs:
        blocks.append(Folded(title=t("Every run, its length and what it waits for"), blocks=tuple(_runs(view))))
    return Section(id="plan", title=t("Plan"), blocks=tuple(blocks))


def _device_days(view: View) -> list[str]:
    """Return what sharing saves in days of a device, beside what the study's author counted."""
    t, plan, counted = view.t, view.plan, view.study.compute.device_days
    whole, spent = plan.device_seconds_without_sharing, plan.device_seconds
    if counted is None or not whole or spent is None:
        return []
    share = 1 - spent / whole
    told = t(
        "in device-days that is {saved} of {whole} ({share}); of the {counted} that the study counts with nothing "
        "shared, {part}",
        saved=t.count(round((whole - spent) / DAY)),
        whole=t.count(round(whole / DAY)),
        share=percent(share),
        counted=t.count(round(counted)),
        part=t.count(round(share * counted)),
    )
    return [told]


def _runs(view: View) -> list[Block]:
    t = view.t
    rows = []
    for run in list(view.plan.runs.values())[:_MOST]:
        record = view.results.runs.get(run.key)
        needs = [step_of(view.plan.runs[given.key]) for given in run.inputs if given.key in view.plan.runs]
        rows.append(
            (
                Cell(text=run.name, code=True),
                Cell(text=run.experiment, link=view.anchor(run.experiment)),
                run.stage.name,
                "—" if run.seed is None else str(run.seed),
                t.list(needs),
                Cell(text=word(t, STATUSES, run.status), tone=STATUS_TONES.get(run.status, "plain")),
                duration(view.forecast(record) if record is not None else run.estimate),
                Cell(text=run.estimate_source, foreign=True),
                duration(None if record is None else record.wall),
            )
        )
    columns = (
        t("run"), t("experiment"), t("stage"), t("seed"), t("waits for"), t("status"), t("forecast"),
        t("forecast from"), t("actual"),
    )  # fmt: skip
    blocks: list[Block] = [without_empty(table(columns, rows, numeric=(3, 6, 8)))]
    if len(view.plan.runs) > _MOST:
        more = t.count(len(view.plan.runs) - _MOST)
        blocks.append(Text(text=t("{count} more; `ablab plan` lists them all.", count=more), small=True))
    return blocks


def _arms(view: View) -> str:
    return view.t.count(len({name for run in view.plan.runs.values() for name, _ in run.users}))

"""Next steps, derived: what did not run, what would decide, what is open. Nothing is asked of anybody's memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ablab.report.document import Bullets, Section, Text
from ablab.report.gates import gates
from ablab.report.words import FINDINGS, SEVERITIES, word

if TYPE_CHECKING:
    from ablab.report.view import View


def section(view: View) -> Section:
    """Return what to do next, the most telling first."""
    items = tuple(steps(view))
    block = (
        Bullets(items=items) if items else Text(text=view.t("Nothing is open: every arm ran and every verdict stands."))
    )
    return Section(id="next", title=view.t("Next steps"), blocks=(block,))


def steps(view: View) -> Iterator[str]:
    """Yield next steps: failed arms, blind controls, seeds that would decide, arms not run, notes, open findings."""
    yield from gates(view, only="held")
    yield from _arms(view)
    for verdict in view.verdicts:
        t = view.t
        for control in verdict.controls:
            if control.told is False:
                yield t(
                    "{comparison}: make control {arm} tell: longer runs, more data or a larger model.",
                    comparison=verdict.comparison,
                    arm=control.experiment,
                )
        more = [
            t("{arm} (about {n}, has {have})", arm=each.experiment, n=each.seeds_needed, have=len(each.seeds))
            for each in verdict.variants
            if each.seeds_needed is not None
        ]
        if more:
            yield t("{comparison}: more seeds would decide: {arms}.", comparison=verdict.comparison, arms=t.list(more))
        single = [each.experiment for each in verdict.variants if each.code == "one-seed"]
        if single:
            yield t(
                "{comparison}: run {arms} and {baseline} with at least three seeds.",
                comparison=verdict.comparison,
                arms=t.list(single),
                baseline=verdict.baseline,
            )
    for note in view.notes:
        if note.kind == "next":
            yield f"{note.experiment}: {note.text}" if note.experiment else note.text
    yield from _findings(view)


def _arms(view: View) -> Iterator[str]:
    t = view.t
    by_status: dict[str, list[str]] = {}
    for name in view.study.experiments:
        by_status.setdefault(view.status(name), []).append(name)
    says = {
        "failed": t("Mend what failed and run again: {arms}."),
        "paused": t("Paused; they go on when the cause is gone: {arms}."),
        "stopped": t("Stopped; `ablab run` goes on from their last checkpoint: {arms}."),
        "pending": t("Not run yet: {arms}."),
        "unresolved": t("Cannot start before a name of the hub is resolved: {arms}."),
        "planned": t("Planned, never started: {arms}; remove `planned: true` to run them."),
    }
    for status, said in says.items():
        if status in by_status:
            yield said.format(arms=shortened(view, by_status[status]))


def _findings(view: View) -> Iterator[str]:
    """Yield open findings that are more than notes, equal ones once."""
    t = view.t
    found: dict[tuple[str, str], int] = {}
    for finding in view.findings:
        if finding.accepted is None and finding.checked and finding.severity != "note":
            key = (finding.severity, finding.id)
            found[key] = found.get(key, 0) + 1
    for (severity, name), count in found.items():
        said = f"{word(t, SEVERITIES, severity)}: {word(t, FINDINGS, name)}"
        yield (
            t("Open {finding}.", finding=said)
            if count == 1
            else t("Open {finding}, at {count} places.", finding=said, count=count)
        )


def shortened(view: View, names: list[str], *, most: int = 8) -> str:
    """Return names as a list, many of them counted."""
    shown = view.t.list(names[:most])
    return shown if len(names) <= most else view.t("{names} and {count} more", names=shown, count=len(names) - most)

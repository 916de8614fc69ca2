"""Lay out a report and write it. The order: the verdict, the evidence under it, then the experiment log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ablab.report import markdown
from ablab.report.document import Document, Section
from ablab.report.sections import arms, log, verdicts
from ablab.report.view import View

SECTIONS: tuple[Callable[[View], Section], ...] = (
    verdicts.section,
    arms.results,
    arms.matrix,
    log.findings,
    log.issues,
    log.time_account,
    log.plan,
    log.environment,
    log.commands,
)


def make_document(view: View) -> Document:
    """Return the whole report as data."""
    study = view.study
    done = sum(run.status == "done" for run in view.plan.runs.values())
    subtitle = f"{study.question} " if study.question else ""
    subtitle += f"Profile {study.profile}, {done} of {len(view.plan.runs)} runs done, {arms.moment(view.written)}."
    return Document(title=study.name, subtitle=subtitle, sections=tuple(make(view) for make in SECTIONS))


def write_markdown(view: View, path: Path) -> Path:
    """Write the report as Markdown, whole or not at all, and return its path."""
    from ablab.store.files import write_text

    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, markdown.render(make_document(view)))
    return path

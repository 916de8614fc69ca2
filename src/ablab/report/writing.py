"""Lay out a report and write it. The order: the verdict, what to do next, the evidence, then the experiment log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ablab.report import markdown
from ablab.report.document import Document, Section
from ablab.report.sections import (
    curves,
    data,
    environment,
    evidence,
    experiments,
    findings,
    history,
    issues,
    matrix,
    next_steps,
    notes,
    parameters,
    plan,
    progress,
    reproduction,
    results,
    timing,
    verdicts,
)
from ablab.report.view import View
from ablab.report.words import STATUSES, word

SECTIONS: tuple[Callable[[View], Section], ...] = (
    verdicts.section,
    next_steps.section,
    evidence.section,
    results.section,
    curves.section,
    matrix.section,
    progress.section,
    notes.section,
    findings.section,
    issues.section,
    timing.section,
    parameters.section,
    experiments.section,
    data.section,
    plan.section,
    environment.section,
    reproduction.section,
    history.section,
)


def make_document(view: View) -> Document:
    """Return the whole report as data."""
    t, study = view.t, view.study
    counts = view.counts
    status = [t("{done} of {all} runs done", done=t.count(counts.get("done", 0)), all=t.count(len(view.plan.runs)))]
    for name in ("running", "failed", "paused", "waiting", "stopped"):
        if counts.get(name):
            status.append(f"{t.count(counts[name])} {word(t, STATUSES, name)}")
    return Document(
        title=study.name,
        subtitle=study.question or study.description,
        sections=tuple(make(view) for make in SECTIONS),
        language=t.language,
        status=(t("profile {profile}", profile=study.profile), *status),
        live=view.live,
        written=t("written {when}", when=t.when(view.written, with_seconds=True)),
    )


def write_markdown(view: View, path: Path) -> Path:
    """Write the report as Markdown, whole or not at all, and return its path."""
    from ablab.store.files import write_text

    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, markdown.render(make_document(view)))
    return path

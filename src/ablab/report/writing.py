"""Lay out a report and write it. The order: the verdict, what to do next, the evidence, then the experiment log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ablab.report import markdown
from ablab.report.document import Document, Section
from ablab.report.sections import (
    checklist,
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
    checklist.section,
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


def write_summary(view: View, folder: Path) -> None:
    """Write summary.json, summary.txt and a log of every experiment that has begun into a folder."""
    from ablab.report import summary
    from ablab.report.logs import write_logs
    from ablab.store.files import write_json, write_text
    from ablab.store.redact import hide_known, redact

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "summary.json", redact(summary.as_json(view)))
    write_text(folder / "summary.txt", hide_known(summary.as_text(view)))
    write_logs(view, folder)


def write(view: View, path: Path) -> Path:
    """Write the report as Markdown and as HTML beside it, each whole or not at all.

    Args:
        view: what it is made from.
        path: report.md or report.html; the other has the same name with its own ending. Another ending is taken as
            part of the name.

    Returns:
        The path of the HTML file, or of the Markdown file where that was asked for by name.
    """
    from ablab.report import html
    from ablab.store.files import write_text
    from ablab.store.redact import hide_known

    document = make_document(view)
    base = path.with_suffix("") if path.suffix in (".md", ".html") else path
    texts = {
        base.with_name(base.name + ".md"): markdown.render(document),
        base.with_name(base.name + ".html"): html.render(document),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, text in texts.items():
        write_text(target, hide_known(text))
    return path if path in texts else list(texts)[-1]

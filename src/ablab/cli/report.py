"""`ablab report`: the verdicts and the experiment log, from the store alone."""

from __future__ import annotations

from typing import Annotated

import typer

from ablab.cli.common import (
    JsonOption,
    LanguageOption,
    OverrideArgument,
    ProfileOption,
    QuickOption,
    StoreOption,
    StudyArgument,
    open_lab,
    print_json,
    say,
)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("report")(report)


def report(
    study: StudyArgument,
    overrides: OverrideArgument = None,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Where to write; the store otherwise.")] = None,
    language: LanguageOption = "en",
    quick: QuickOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the report as Markdown and as one HTML file, and print its verdicts."""
    from ablab.report.verdicts import verdict_lines

    lab = open_lab(study, overrides, profile=profile, store=store, quick=quick)
    path = lab.report(output, language=language)
    if as_json:
        print_json({"report": str(path), "verdicts": lab.verdicts})
        return
    for line in verdict_lines(lab.study, lab.verdicts):
        say(line)
    say(f"report: {path}")

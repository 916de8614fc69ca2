"""`ablab fetch`: models and data of a study, downloaded and verified before any run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ablab.cli.common import (
    JsonOption,
    OverrideArgument,
    ProfileOption,
    StoreOption,
    StudyArgument,
    open_lab,
    print_json,
    print_table,
    say,
)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("fetch")(fetch)


def fetch(
    study: StudyArgument,
    overrides: OverrideArgument = None,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    check: Annotated[bool, typer.Option("--check", help="Look at what is here; download nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Download and verify the models and data that a study reads; broken downloads go on where they stopped.

    What the study's checklist expects stands beside what is found. Exit code 1 when something is missing, gated,
    damaged or of another size; each is named with what to do.
    """
    lab = open_lab(study, overrides, profile=profile, store=store)
    items = lab.fetch(say=None if as_json else say, download=not check)
    wrong = [item for item in items if not item.ok]
    if as_json:
        print_json({"items": [asdict(item) | {"files": len(item.files)} for item in items], "ok": not wrong})
    else:
        columns = ("", "what", "kind", "status", "expected", "found")
        print_table(columns, [("✓" if i.ok else "✗", i.name, i.kind, i.status, i.expected, i.found) for i in items])
        for item in wrong:
            say(f"{item.name}: {item.status}: {item.remedy}")
        say(f"{len(items) - len(wrong)} of {len(items)} are here" if items else "the study reads nothing from outside")
    raise typer.Exit(1 if wrong else 0)

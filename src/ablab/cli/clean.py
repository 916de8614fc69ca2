"""`ablab gc`: what retention allows to remove, forecast first."""

from __future__ import annotations

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
    app.command("gc")(gc)


def gc(
    study: StudyArgument,
    overrides: OverrideArgument = None,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it only the forecast is shown.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show, and with --yes remove, checkpoints outside the retention and frozen sources of no run; results stay."""
    from ablab.contract.units import size
    from ablab.store.old_sources import old_sources
    from ablab.store.retention import collect, removals

    lab = open_lab(study, overrides, profile=profile, store=store)
    plan = lab.plan()
    pending = {key for run in plan.runs.values() if run.status != "done" for key in (item.key for item in run.inputs)}
    names = {run.name for run in plan.runs.values()}
    found = removals(lab.store, pinned=pending, retention=lab.study.retention, runs=names) + old_sources(lab.store)
    total = sum(removal.bytes for removal in found)
    if as_json:
        print_json({"removals": found, "bytes": total, "removed": yes})
    elif found:
        print_table(("what", "why", "size"), [(r.path, r.reason, size(r.bytes)) for r in found])
    if yes:
        collect(found)
    if not as_json:
        say(f"{len(found)} items, {size(total)} " + ("removed" if yes else "to remove; ablab gc --yes removes them"))

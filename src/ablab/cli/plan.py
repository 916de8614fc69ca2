"""`ablab plan`: what must run, what is reused, and what it will cost."""

from __future__ import annotations

from typing import Annotated

import typer

from ablab.cli.common import (
    JsonOption,
    OverrideArgument,
    ProfileOption,
    QuickOption,
    StoreOption,
    StudyArgument,
    open_lab,
    print_json,
    print_table,
    say,
)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("plan")(plan)


def plan(
    study: StudyArgument,
    overrides: OverrideArgument = None,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Experiments (names or patterns).")] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seeds", help="Seeds.")] = None,
    rows: Annotated[int, typer.Option("--rows", help="Rows of runs to print; 0 prints all.")] = 60,
    quick: QuickOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the graph of runs: done and left, time and disk forecast with their source, the critical path."""
    from ablab.plan.describe import plan_json, plan_rows, plan_summary

    lab = open_lab(study, overrides, profile=profile, store=store, quick=quick)
    made = lab.plan(only=only, seeds=seeds)
    if as_json:
        print_json(plan_json(made))
        return
    table = plan_rows(made)
    shown = table if rows == 0 else table[:rows]
    if shown:
        print_table(list(shown[0]), [list(row.values()) for row in shown])
    if len(shown) < len(table):
        say(f"... and {len(table) - len(shown)} more (--rows 0 shows all)")
    for line in plan_summary(made):
        say(line)

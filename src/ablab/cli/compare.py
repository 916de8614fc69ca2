"""`ablab compare`: any two arms or runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ablab.cli.common import JsonOption, ProfileOption, StoreOption, open_lab, print_json, say

SideHelp = "EXPERIMENT, EXPERIMENT/seed, EXPERIMENT/seed/stage, or a run's folder, key, or its beginning."


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("compare")(compare)


def compare(
    a: Annotated[str, typer.Argument(help=SideHelp)],
    b: Annotated[str, typer.Argument(help="What is held against it, named likewise.")],
    study: Annotated[
        str | None, typer.Option("--study", help="Study file of the arms; the newest launch that ran them otherwise.")
    ] = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", "-m", help="Only these; all that both have.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Write Markdown to this file instead of printing.")
    ] = None,
    figure: Annotated[
        str | None, typer.Option("--figure", help="Folder to draw the curves into, as SVG, PDF and CSV.")
    ] = None,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold B against A: what differs, metrics, curves, and the gap at equal steps. Exploratory: without a verdict."""
    from ablab.report.compare import compare as compare_sides
    from ablab.report.compare_text import document
    from ablab.report.markdown import render
    from ablab.report.sides import find_sides, planned_source
    from ablab.store.files import write_text
    from ablab.store.layout import open_store

    place, source = open_store(store), None
    if study is not None:
        lab = open_lab(study, None, profile=profile, store=store)
        source = planned_source(lab.study, lab.store)
    left, right = find_sides(place, (a, b), source)
    view = compare_sides(left, right, metrics=metric)
    files: list[str] = []
    if figure is not None:
        from ablab.cli.figure import USUAL, write
        from ablab.report.compare import figures

        files = [str(path) for made in figures(view) for path in write(made, Path(figure), USUAL)]
    if as_json:
        print_json({**view.as_json(), "files": files})
        return
    text = render(document(view))
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(Path(output), text)
        say(f"{output} written")
    for path in files:
        say(path)

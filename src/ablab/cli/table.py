"""`ablab table`: the results as LaTeX, Markdown or CSV, or as plain rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ablab.cli.common import (
    JsonOption,
    OverrideArgument,
    ProfileOption,
    StoreOption,
    StudyArgument,
    open_lab,
    print_json,
    say,
)

Format = Literal["markdown", "latex", "csv", "rows"]
MetricOption = Annotated[
    list[str] | None, typer.Option("--metric", "-m", help="Metric, as val/perplexity or val/perplexity@best.")
]
ArmsOption = Annotated[list[str] | None, typer.Option("--arms", "-a", help="Experiments (names or patterns).")]
ComparisonOption = Annotated[list[str] | None, typer.Option("--comparison", "-c", help="Comparisons by name.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("table")(table)


def table(
    study: StudyArgument,
    overrides: OverrideArgument = None,
    form: Annotated[Format, typer.Option("--format", "-f", help="How it is written.")] = "markdown",
    metric: MetricOption = None,
    arms: ArmsOption = None,
    comparison: ComparisonOption = None,
    caption: Annotated[str, typer.Option("--caption", help="Caption (LaTeX); the study's question otherwise.")] = "",
    label: Annotated[str, typer.Option("--label", help="Label (LaTeX); the study's name otherwise.")] = "",
    output: Annotated[str | None, typer.Option("--output", "-o", help="File to write instead of printing.")] = None,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the results as a table: mean, interval and number of seeds, references in a column of their own.

    The best of a group is bold only where paired intervals show it better than every other arm. The format `rows` is
    a CSV with one row an experiment and seed, and a column for every metric.
    """
    from ablab.analysis.collect import collect
    from ablab.report.references import references_of
    from ablab.report.row_text import rows_csv
    from ablab.report.table_text import csv_text, latex, markdown
    from ablab.report.tables import make_table

    lab = open_lab(study, overrides, profile=profile, store=store)
    results = collect(lab.study, lab.plan(), lab.store, with_curves=False)
    if form == "rows" and not as_json:
        _write(rows_csv(results, metrics=metric, arms=arms), output)
        return
    made = make_table(
        lab.study,
        results,
        references_of(lab.study, lab.store),
        metrics=metric,
        arms=arms,
        comparisons=comparison,
    )
    if as_json:
        print_json({"study": made.study, "profile": made.profile, "rows": list(made.records())})
        return
    text = {
        "markdown": lambda: markdown(made),
        "latex": lambda: latex(made, caption=caption, label=label),
        "csv": lambda: csv_text(made),
    }[form]()
    _write(text, output)


def _write(text: str, output: str | None) -> None:
    from ablab.store.files import write_text

    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(Path(output), text)
        say(f"{output} written")

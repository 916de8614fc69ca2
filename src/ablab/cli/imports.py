"""`ablab import`: figures from elsewhere, as references beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from ablab.cli.common import (
    JsonOption,
    ProfileOption,
    StoreOption,
    StudyArgument,
    open_lab,
    print_json,
    print_table,
    say,
)
from ablab.contract.failure import ConfigError

Format = Literal["csv", "json", "markdown"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("import")(import_)


def import_(
    study: StudyArgument,
    file: Annotated[str, typer.Argument(help="CSV, JSON, or Markdown with a table.")],
    source: Annotated[str | None, typer.Option("--source", "-s", help="Where they come from; the file's name.")] = None,
    experiment_column: Annotated[
        str | None, typer.Option("--experiment-column", help="Column that names the experiment; found otherwise.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="COLUMN=METRIC, for example 'final PPL=val/perplexity'.")
    ] = None,
    metric_column: Annotated[
        str | None, typer.Option("--metric-column", help="Column that names the metric, with a row a number.")
    ] = None,
    value_column: Annotated[str | None, typer.Option("--value-column", help="Column of the number then.")] = None,
    rename: Annotated[
        list[str] | None, typer.Option("--rename", help="OLD=EXPERIMENT, where the file has another name.")
    ] = None,
    table: Annotated[int | None, typer.Option("--table", help="Which table of the file, from 1.", min=1)] = None,
    form: Annotated[Format | None, typer.Option("--format", "-f", help="Its format; by its ending otherwise.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would come in, and store nothing.")] = False,
    paste: Annotated[
        bool, typer.Option("--print", help="Print `references:` for the study file, and store nothing.")
    ] = False,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take figures of an older log or a paper as references: shown beside ours with their source, never mixed in.

    Importing again under the same source replaces what that source gave before. What is left out is listed with why.
    """
    from ablab.report.importing import Columns, lines_left, pasted, take
    from ablab.report.sheets import read_sheets
    from ablab.store.manifest import sha256
    from ablab.store.references import append_references, references_path

    lab = open_lab(study, None, profile=profile, store=store)
    path = Path(file)
    cited = source or path.name
    columns = Columns(
        experiment=experiment_column,
        metrics=_pairs("--metric", metric),
        metric=metric_column,
        value=value_column,
        renamed=_pairs("--rename", rename),
    )
    found = take(read_sheets(path, form), lab.study, columns, table=table, source=cited)
    folder = lab.store.study_folder(lab.study.name, profile)
    entries: Sequence[object] = found.entries
    stored = not (dry_run or paste)
    if stored:
        entries = append_references(folder, found.entries, source=cited, file=path.name, digest=sha256(path)[1])
    if as_json:
        where = str(references_path(folder)) if stored else None
        print_json({"source": cited, "stored": where, "references": list(entries), "left_out": list(found.left)})
        return
    if paste:
        typer.echo(pasted(found.entries, cited), nl=False)
        return
    print_table(
        ("experiment", "metric", "value", "row", "as it stands there"),
        [(e.experiment, e.metric, e.value, e.row, e.text) for e in found.entries],
    )
    for line in lines_left(found.left):
        say(line)
    verb = "imported into " + str(references_path(folder)) if stored else "would be imported"
    say(f"{len(found.entries)} references from {cited!r} {verb}")


def _pairs(option: str, given: Sequence[str] | None) -> dict[str, str]:
    pairs = {}
    for text in given or ():
        left, equals, right = text.rpartition("=")
        if not equals or not left.strip() or not right.strip():
            raise ConfigError(f"{option} {text!r}: expected OLD=NEW, for example {option} 'final PPL=val/perplexity'")
        pairs[left.strip()] = right.strip()
    return pairs

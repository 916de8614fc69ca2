"""`ablab data`: describe, compare, filter and balance the rows of data files, computed by a worker now."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablab.cli.common import JsonOption, print_json, print_table, say
from ablab.contract.failure import ConfigError

if TYPE_CHECKING:
    from ablab.contract.result import Evaluation, Table
    from ablab.launch.on_demand import Answer

FilesArgument = Annotated[
    list[str], typer.Argument(help="JSONL or parquet files that make one set.", metavar="FILE...")
]
PlotsOption = Annotated[str | None, typer.Option("--plots", help="Folder for pictures of the distributions.")]
FieldOption = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        help="What a field means: ROLE=NAME, for example question=text. Roles: id, question, image, answers, "
        "passage_ids, passage_texts, passage_images.",
    ),
]
ProcessesOption = Annotated[int | None, typer.Option("--processes", help="Processes that read.", min=1)]
OutputOption = Annotated[str, typer.Option("--output", "-o", help="File for the rows, .jsonl.")]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


def register(main: typer.Typer) -> None:
    """Add the commands to the application."""
    main.add_typer(app, name="data", help="Describe, compare, filter and balance data files of millions of rows.")


@app.command("describe", short_help="every row: schema, gaps, lengths, duplicates")
def describe(
    files: FilesArgument,
    fields: FieldOption = None,
    plots: PlotsOption = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read every row: schema, missing values, candidates a query, question words, lengths, duplicates."""
    parameters = {"files": _absolute(files), "fields": _fields(fields), "plots": plots is not None}
    with _answer("describe", parameters, processes) as answer:
        _show(answer, plots, as_json=as_json)


@app.command("compare", short_help="two sets beside each other")
def compare(
    first: Annotated[str, typer.Argument(help="File of the first set (the original).")],
    second: Annotated[str, typer.Argument(help="File of the second set (what was made of it).")],
    fields: FieldOption = None,
    plots: PlotsOption = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put two sets beside each other: shares, differences in points, and what both hold."""
    names = [Path(first).name, Path(second).name]
    if names[0] == names[1]:
        names = [first, second]
    parameters = {
        "first": _absolute([first]),
        "second": _absolute([second]),
        "names": names,
        "fields": _fields(fields),
        "plots": plots is not None,
    }
    with _answer("compare", parameters, processes) as answer:
        _show(answer, plots, as_json=as_json)


@app.command("filter", short_help="rows with text and image on both sides")
def filter_rows(
    files: FilesArgument,
    output: OutputOption,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", help="question, image, passage-text or passage-image; all four when not given."),
    ] = None,
    passages: Annotated[
        list[str] | None,
        typer.Option("--passages", help="File of the pool, where rows name their candidates only by id."),
    ] = None,
    fields: FieldOption = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep the rows with text and image on both sides, or with what is required; candidates lacking it are left out."""
    parameters: dict[str, Any] = {
        "files": _absolute(files),
        "passages": _absolute(passages or []),
        "fields": _fields(fields),
    }
    if require:
        parameters["require"] = require
    _write("filter", parameters, output, processes, as_json=as_json)


@app.command("balance", short_help="equal numbers from each stratum, seeded")
def balance(
    files: FilesArgument,
    output: OutputOption,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", help="candidates, question-word, image, or a field; several make their combinations."),
    ] = None,
    rows: Annotated[int | None, typer.Option("--rows", help="Rows of the subset.", min=1)] = None,
    share: Annotated[float | None, typer.Option("--share", help="Rows of the subset as a share of all.")] = None,
    per_stratum: Annotated[
        int | None, typer.Option("--per-stratum", help="Rows of each stratum at most.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draw.", min=0)] = 42,
    fields: FieldOption = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a subset with equal numbers from each stratum, as far as they reach; the same for the same seed."""
    parameters = {
        "files": _absolute(files),
        "strata": by or ["candidates"],
        "rows": rows,
        "share": share,
        "per_stratum": per_stratum,
        "seed": seed,
        "fields": _fields(fields),
    }
    _write("balance", parameters, output, processes, as_json=as_json)


def _absolute(files: list[str]) -> list[str]:
    return [str(Path(file).expanduser().absolute()) for file in files]


def _fields(given: list[str] | None) -> dict[str, str]:
    """Return what fields mean, as ROLE=NAME says it."""
    from ablab.contract.registry import nearest
    from ablab.contract.tables import Fields

    found = {}
    for text in given or ():
        role, equals, name = text.partition("=")
        roles = list(Fields.model_fields)
        if not equals or role not in roles:
            near = nearest(role, roles)
            hint = f"; did you mean {near}?" if near else ""
            raise ConfigError(f"--field {text!r}: expected ROLE=NAME with one of the roles {', '.join(roles)}{hint}")
        found[role] = name
    return found


@contextmanager
def _answer(kind: str, parameters: dict[str, Any], processes: int | None) -> Iterator[Answer]:
    """Check the parameters here, and have a worker do the work."""
    from pydantic import ValidationError

    from ablab.contract.tables import TABLES
    from ablab.launch.on_demand import on_demand

    model = next(spec.parameters for spec in TABLES if spec.kind == kind)
    try:
        checked = model.model_validate(parameters)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or kind
        raise ConfigError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error
    with (
        _bar() as progress,
        on_demand(
            task="command",
            kind=kind,
            parameters=checked.model_dump(mode="json"),
            threads=processes,
            progress=progress,
        ) as answer,
    ):
        yield answer


@contextmanager
def _bar() -> Iterator[Callable[[float], None] | None]:
    """Show how far the work is on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=1.0)
        yield lambda share: progress.update(task, completed=share)


def _write(kind: str, parameters: dict[str, Any], output: str, processes: int | None, *, as_json: bool) -> None:
    target = Path(output)
    if target.suffix != ".jsonl":
        raise ConfigError(f"--output {output!r}: rows are written as JSONL; name a file that ends in .jsonl")
    if target.exists():
        raise ConfigError(f"--output {output!r} exists; choose another name, or remove it first")
    with _answer(kind, parameters, processes) as answer:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(answer.folder / answer.result.artifacts["rows"].path, target)
        if as_json:
            evaluation = _evaluation(answer)
            print_json({"output": str(target), **answer.result.facts, "tables": evaluation.model_dump()["tables"]})
            return
        _print_tables(_evaluation(answer))
        say(f"{target} written")


def _show(answer: Answer, plots: str | None, *, as_json: bool) -> None:
    from ablab.store.files import read_json

    if plots is not None and "plots" not in answer.result.artifacts:
        say("no pictures: matplotlib is not installed (pip install 'ablab[plots]')")
    elif plots is not None:
        shutil.copytree(answer.folder / answer.result.artifacts["plots"].path, plots, dirs_exist_ok=True)
    if as_json:
        print_json(read_json(answer.folder / answer.result.artifacts["description"].path))
        return
    _print_tables(_evaluation(answer))
    if plots is not None and "plots" in answer.result.artifacts:
        say(f"pictures in {plots}")


def _evaluation(answer: Answer) -> Evaluation:
    from ablab.contract.result import Evaluation

    (file,) = answer.result.evaluations
    return Evaluation.model_validate_json((answer.folder / file).read_bytes())


def _print_tables(evaluation: Evaluation) -> None:
    for i, table in enumerate(evaluation.tables):
        if i:
            say("")
        if not sys.stdout.isatty():
            say(f"# {table.name}")
        print_table(
            table.columns, [[_cell(table, c, v) for c, v in enumerate(row)] for row in table.rows], title=table.name
        )


def _cell(table: Table, column: int, value: Any) -> str:
    """Return a value as people read it: shares in per cent, counts with separators."""
    name = table.columns[column]
    if value is None:
        return "—"
    if isinstance(value, float) and "share" in name:
        return f"{100 * value:.2f} %"
    if isinstance(value, float) and table.units.get(name) == "points":
        return f"{value:+.2f}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)

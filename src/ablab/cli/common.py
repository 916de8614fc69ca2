"""Arguments that commands share, and how they print: tables for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablab.contract.failure import ConfigError

if TYPE_CHECKING:
    from ablab.lab import Lab

StudyArgument = Annotated[str, typer.Argument(help="The study file.", metavar="STUDY")]
OverrideArgument = Annotated[
    list[str] | None, typer.Argument(help="Overrides, for example model.layers=2.", metavar="[KEY=VALUE]...")
]
ProfileOption = Annotated[str, typer.Option("--profile", "-p", help="Profile of the study.")]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="Folder of results.", envvar="ABLAB_STORE", show_default="./lab")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
LanguageOption = Annotated[
    str, typer.Option("--lang", help="Language of the report: en, ko or zh.", envvar="ABLAB_LANG")
]
QuickOption = Annotated[bool, typer.Option("--quick", help="One epoch each, any study.")]


def open_lab(
    study: str, overrides: Sequence[str] | None, *, profile: str, store: str | None, quick: bool = False
) -> Lab:
    """Load the study a command was given."""
    from ablab.lab import load

    wrong = [text for text in overrides or () if "=" not in text]
    if wrong:
        raise ConfigError(f"override {wrong[0]!r} is not of the form key=value (for example model.layers=2)")
    return load(study, profile=profile, overrides=tuple(overrides or ()), store=store, quick=quick)


def device_indices(text: str | None) -> tuple[int, ...]:
    """Return the GPUs that an option names; none for the CPU.

    Raises:
        ConfigError: it is neither indices nor cpu.
    """
    if text is None or text == "cpu":
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--devices {text!r}: expected GPU indices such as 0,1, or cpu") from None


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def _plain(value: Any) -> Any:
    """Turn what JSON does not know into what it does."""
    import dataclasses

    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    return str(value)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "") -> None:
    """Print a table: drawn on a terminal, tab-separated lines elsewhere."""
    if not sys.stdout.isatty():
        typer.echo("\t".join(columns))
        for row in rows:
            typer.echo("\t".join(map(str, row)))
        return
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    Console().print(table)


def say(text: str) -> None:
    """Print a line at once, so that a log shows it when it happens."""
    typer.echo(text)
    sys.stdout.flush()

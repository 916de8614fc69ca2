"""Entry point of `ablab`: the commands, and how an error is told.

Exit codes: 0 done; 1 the command ran and the answer is no (findings of severity error, failed runs); 2 the study or
the command line is wrong; 3 stopped on request, the same command goes on; 130 interrupted.
"""

from __future__ import annotations

import os
import sys

# Looking for pydantic's plugins reads the metadata of every installed package; Ablab has none.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

import typer

from ablab import __version__
from ablab.cli import (
    check,
    clean,
    compare,
    data,
    define,
    digest,
    fetch,
    figure,
    imports,
    merge,
    note,
    outlets,
    plan,
    report,
    run,
    search,
    serve,
    show,
    status,
    table,
    watch,
)
from ablab.cli.overview import Overview

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="ablab",
    cls=Overview,
    help="Runs deep-learning ablation studies that can be believed: from one YAML file to a verdict.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"ablab {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """Runs deep-learning ablation studies that can be believed: from one YAML file to a verdict."""


for module in (
    check,
    plan,
    run,
    status,
    watch,
    report,
    table,
    figure,
    compare,
    serve,
    digest,
    note,
    imports,
    show,
    define,
    fetch,
    data,
    merge,
    outlets,
    search,
    clean,
):
    module.register(app)


def _build_only(name: str) -> None:
    """Leave the other commands unbuilt, which take longer than many a command; all stay where none is called that."""
    commands = [each for each in app.registered_commands if each.name == name]
    groups = [each for each in app.registered_groups if each.name == name]
    if commands or groups:
        app.registered_commands, app.registered_groups = commands, groups


def main() -> None:
    """Run the command line; a user's mistake ends in a message and exit code 2, never in a traceback."""
    from ablab.contract.failure import AblabError

    if len(sys.argv) > 1:
        _build_only(sys.argv[1])
    try:
        app(standalone_mode=True)
    except AblabError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(EXIT_USAGE)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()

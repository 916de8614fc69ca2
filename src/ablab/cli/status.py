"""`ablab status`, `ablab logs`: where things stand."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ablab.cli.common import JsonOption, OverrideArgument, ProfileOption, StoreOption, print_json, print_table, say
from ablab.contract.failure import ConfigError

if TYPE_CHECKING:
    from ablab.report.status import StatusRow
    from ablab.store.layout import AttemptFolder, RunFolder, Store

MaybeStudy = Annotated[str | None, typer.Argument(help="The study file; without it, what is unfinished in the store.")]
RowsOption = Annotated[int, typer.Option("--rows", help="Rows to print; 0 prints all.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("status")(status)
    app.command("logs")(logs)


def status(
    study: MaybeStudy = None,
    overrides: OverrideArgument = None,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    oneline: Annotated[bool, typer.Option("--oneline", help="One line, for ssh.")] = False,
    rows: RowsOption = 60,
    as_json: JsonOption = False,
) -> None:
    """Show each run's progress, time left (validation and later stages counted), loss, best value, gap and memory."""
    from ablab.report.status import one_line
    from ablab.store.retention import disk_free

    found, place = gather(study, overrides, profile=profile, store=store)
    free = disk_free(place.root)
    if as_json:
        print_json({"runs": [row.as_json() for row in found], "disk_free": free, "store": str(place.root)})
    elif oneline:
        say(one_line(found, free=free))
    else:
        show_rows(found, limit=rows)
        say(one_line(found, free=free) + f" in {place.root}" + store_size(place))


def store_size(place: Store) -> str:
    """Return the size of a small store as text; walking a large one would take longer than the rest."""
    from ablab.contract.units import size
    from ablab.store.retention import folder_bytes

    runs = sum(1 for _ in place.runs())
    return f", {size(folder_bytes(place.root))} in {runs} runs" if runs <= 2000 else f", {runs} runs"


def gather(
    study: str | None, overrides: list[str] | None, *, profile: str, store: str | None
) -> tuple[list[StatusRow], Store]:
    """Return the rows of one study, or the unfinished runs of the whole store."""
    from ablab.report.status import study_rows, unfinished_rows
    from ablab.store.layout import open_store

    if study is None:
        place = open_store(store)
        return list(unfinished_rows(place)), place
    from ablab.cli.common import open_lab

    lab = open_lab(study, overrides, profile=profile, store=store)
    return study_rows(lab.study, lab.plan(), lab.store), lab.store


def show_rows(rows: list[StatusRow], *, limit: int) -> None:
    """Print status rows as a table."""
    from ablab.report.status import COLUMNS, cells

    shown = rows if limit == 0 else rows[:limit]
    if shown:
        print_table(COLUMNS, map(cells, shown))
    if len(shown) < len(rows):
        say(f"... and {len(rows) - len(shown)} more (--rows 0 shows all)")


def logs(
    run: Annotated[str, typer.Argument(help="Run (folder name, key or its beginning), or EXPERIMENT[/seed[/stage]].")],
    store: StoreOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    attempt: Annotated[int | None, typer.Option("--attempt", help="Which attempt; the last otherwise.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Last lines; 0 prints all.")] = 200,
) -> None:
    """Print a run's log: what it reported, line by line, then what it printed."""
    from ablab.report.find import find_run
    from ablab.report.logs import attempt_lines
    from ablab.store.layout import open_store

    folder = find_run(open_store(store), run)
    chosen = _attempt_of(folder, attempt)
    # Sizes are taken before: what comes meanwhile is printed twice rather than never.
    sizes = [path.stat().st_size if path.exists() else 0 for path in (chosen.events, chosen.log)]
    text = list(attempt_lines(chosen))
    for line in text if lines == 0 else text[-lines:]:
        say(line)
    if follow:
        _follow(folder, chosen, sizes)


def _attempt_of(folder: RunFolder, attempt: int | None) -> AttemptFolder:
    attempts = folder.attempts()
    if not attempts:
        raise ConfigError(f"{folder.name} has not started yet: it has no log")
    number = attempts[-1] if attempt is None else attempt
    if number not in attempts:
        raise ConfigError(f"{folder.name} has no attempt {number}; it has {', '.join(map(str, attempts))}")
    return folder.attempt(number)


def _follow(folder: RunFolder, attempt: AttemptFolder, sizes: list[int]) -> None:
    """Print lines as they come, from these sizes of events and text on, until the run ends."""
    from ablab.report.logs import event_lines
    from ablab.report.status import believed
    from ablab.store.lines import parse_lines

    while True:
        state = folder.read_state()
        over = state is None or believed(folder, state) != "running"
        for place, path in enumerate((attempt.events, attempt.log)):
            data = _since(path, sizes[place])
            sizes[place] += len(data)
            if place:
                typer.echo(data.decode(errors="replace"), nl=False)
            else:
                for line in event_lines(parse_lines(data, path, problems=[]), attempt):
                    say(line)
        if over:
            return
        time.sleep(0.3)


def _since(path: Path, start: int) -> bytes:
    """Return the whole lines of a file behind its first `start` bytes."""
    if not path.exists():
        return b""
    with path.open("rb") as stream:
        stream.seek(start)
        data = stream.read()
    return data[: data.rfind(b"\n") + 1]

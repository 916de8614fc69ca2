"""`ablab digest`: what happened in a period, across studies."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Annotated

import typer

from ablab.cli.common import JsonOption, StoreOption, print_json, say
from ablab.contract.failure import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("digest")(digest)


def digest(
    since: Annotated[str, typer.Option("--since", help="A duration back (7d, 12h, 2w) or a date (2026-01-31).")] = "7d",
    until: Annotated[str | None, typer.Option("--until", help="Its end, likewise; now otherwise.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Write Markdown to this file instead of printing.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what finished, failed and was decided in a period, across all studies of the store, as Markdown."""
    from ablab.report.digest import Period, make_digest
    from ablab.report.digest_text import as_json as plain
    from ablab.report.digest_text import document
    from ablab.report.markdown import render
    from ablab.store.files import write_text
    from ablab.store.layout import open_store

    now = time.time()
    # Until now means with what happens this very second.
    period = Period(
        since=moment("--since", since, now=now), until=now + 1.0 if until is None else moment("--until", until, now=now)
    )
    if period.until <= period.since:
        raise ConfigError(f"--since {since} is not before --until {until}")
    place = open_store(store)
    if not place.root.is_dir():
        raise ConfigError(f"{place.root} is no folder: there is no store; give --store")
    found = make_digest(place, period)
    if as_json:
        print_json(plain(found))
        return
    text = render(document(found))
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(Path(output), text)
        say(f"{output} written")


def moment(option: str, text: str, *, now: float) -> float:
    """Return the Unix time that a duration back from now, or a local date and time, means."""
    from ablab.study.durations import parse_duration

    words = text.strip().lower()
    weeks = words.removesuffix("w").strip() if words.endswith("w") else ""
    try:
        return now - (7 * 86400 * float(weeks) if weeks else parse_duration(words))
    except ValueError:
        try:
            return datetime.datetime.fromisoformat(text.strip()).timestamp()
        except ValueError:
            raise ConfigError(
                f"{option} {text!r}: expected a duration (7d, 12h, 2w) or a date (2026-01-31, 2026-01-31T08:00)"
            ) from None

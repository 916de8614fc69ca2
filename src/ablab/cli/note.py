"""`ablab note` and `ablab notes`: the journal of a study."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Literal

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
from ablab.contract.failure import ConfigError

if TYPE_CHECKING:
    from ablab.store.notes import Note

#: The kinds of `ablab.store.notes`, for the help text.
Kind = Literal["observation", "hypothesis", "issue", "next"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("note")(note)
    app.command("notes")(notes)


def note(
    study: StudyArgument,
    text: Annotated[str, typer.Argument(help="What to note, in quotes; - reads it from standard input.")],
    overrides: OverrideArgument = None,
    kind: Annotated[Kind, typer.Option("--kind", "-k", help="What sort of note it is.")] = "observation",
    experiment: Annotated[str | None, typer.Option("--experiment", "-e", help="Experiment it is about.")] = None,
    metric: Annotated[str | None, typer.Option("--metric", "-m", help="Metric it is about: a footnote there.")] = None,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a dated entry into the journal of a study, with where the study stands; the report shows it in place."""
    from ablab.report.names import check_metric, experiment_names
    from ablab.store.notes import append_note

    if any("=" not in item for item in overrides or ()):
        raise ConfigError('quote the text of a note: ablab note STUDY "loss went up"')
    lab = open_lab(study, overrides, profile=profile, store=store)
    if experiment is not None and experiment not in lab.study.experiments:
        experiment_names(lab.study, [experiment])
        raise ConfigError(f"a note is about one experiment; {experiment!r} is a pattern")
    if metric is not None:
        check_metric(lab.study, metric)
    words = sys.stdin.read() if text == "-" else text
    if not words.strip():
        raise ConfigError("the note is empty; say what was seen")
    counts: Counter[str] = Counter(run.status for run in lab.plan().runs.values())
    written = append_note(
        lab.store.study_folder(lab.study.name, profile),
        words,
        kind=kind,
        study=lab.study.name,
        profile=profile,
        experiment=experiment,
        metric=metric,
        status=counts,
    )
    if as_json:
        print_json(written.as_json())
    else:
        say("noted: " + lines_of([written])[0])


def notes(
    study: StudyArgument,
    kind: Annotated[Kind | None, typer.Option("--kind", "-k", help="Only notes of this sort.")] = None,
    experiment: Annotated[str | None, typer.Option("--experiment", "-e", help="Only notes on it.")] = None,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the journal of a study, oldest first."""
    from ablab.store.notes import read_notes

    lab = open_lab(study, None, profile=profile, store=store)
    found = [
        note
        for note in read_notes(lab.store.study_folder(lab.study.name, profile))
        if kind in (None, note.kind) and experiment in (None, note.experiment)
    ]
    if as_json:
        print_json({"study": lab.study.name, "profile": profile, "notes": [note.as_json() for note in found]})
        return
    for line in lines_of(found) or ["no notes yet; ablab note writes one"]:
        say(line)


def lines_of(found: list[Note]) -> list[str]:
    """Return notes as lines for a terminal: date, kind, what it is about, text, and where the study stood."""
    import time

    lines = []
    for item in found:
        about = " ".join(part for part in (item.experiment, item.metric) if part)
        stood = ", ".join(f"{count} {status}" for status, count in sorted(item.status.items()))
        date = time.strftime("%Y-%m-%d %H:%M", time.localtime(item.time))
        head = f"{date}  {item.kind}" + (f" on {about}" if about else "")
        lines.append(f"{head}: {item.text}" + (f"  [{stood}]" if stood else ""))
    return lines

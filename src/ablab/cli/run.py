"""`ablab run` and `ablab stop`."""

from __future__ import annotations

import datetime
import time
from typing import Annotated, Any

import typer

from ablab.cli.check import print_findings
from ablab.cli.common import (
    JsonOption,
    LanguageOption,
    OverrideArgument,
    ProfileOption,
    QuickOption,
    StoreOption,
    StudyArgument,
    device_indices,
    open_lab,
    print_json,
    say,
)
from ablab.cli.progress import launch_progress
from ablab.contract.failure import ConfigError


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("run")(run)
    app.command("stop")(stop)


def run(
    study: StudyArgument,
    overrides: OverrideArgument = None,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Experiments (names or patterns).")] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seeds", help="Seeds.")] = None,
    devices: Annotated[str | None, typer.Option("--devices", help="GPU indices (0,1) or cpu.")] = None,
    slots: Annotated[int | None, typer.Option("--slots", help="Runs side by side on CPU.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Stop by this time (08:00, or an ISO date).")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Go on in the background; survives hang-up.")] = False,
    track: Annotated[list[str] | None, typer.Option("--track", help="tensorboard, wandb, mlflow, trackio.")] = None,
    rehearse: Annotated[bool, typer.Option(help="Rehearse each configuration before the first long run.")] = True,
    quick: QuickOption = False,
    language: LanguageOption = "en",
    force: Annotated[bool, typer.Option("--force", help="Run in spite of findings of severity error.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run what is left of a study on the hardware at hand; kill it at any time and start the same command again.

    Exit code 0 when everything asked for is done, 1 when a run failed, 3 when stopped on request.
    """
    lab = open_lab(study, overrides, profile=profile, store=store, quick=quick)
    _refuse_unsound(lab, force=force, quiet=as_json)
    options: dict[str, Any] = {
        "only": tuple(only) if only else None,
        "seeds": tuple(seeds) if seeds else None,
        "devices": _devices(devices),
        "slots": slots,
        "until": None if until is None else clock_time(until),
        "detach": detach,
        "track": tuple(track or ()),
        "rehearse": rehearse,
    }
    if as_json:
        summary = lab.run(language=language, **options)
        print_json(summary)
    else:
        left = sum(run.status not in {"done", "planned"} for run in lab.plan(only=only, seeds=seeds).runs.values())
        with launch_progress(lab.store, total=left) as (tell, on_event):
            summary = lab.run(say=tell, on_event=on_event, language=language, **options)
        if not detach:
            _conclude(lab, language)
    raise typer.Exit(summary.exit_code)


def _refuse_unsound(lab: Any, *, force: bool, quiet: bool) -> None:
    errors = [finding for finding in lab.check() if finding.severity == "error" and not finding.accepted]
    if errors and not quiet:
        print_findings(errors)
    if errors and not force:
        raise ConfigError(
            f"the study has {len(errors)} findings of severity error, so nothing was started; mend them, declare the "
            f"difference with `also:`, accept a finding with `accept: {{{errors[0].id}: reason}}`, or run with --force"
        )


def _conclude(lab: Any, language: str) -> None:
    """Write the report and print the verdicts."""
    from ablab.report.verdicts import verdict_lines

    path = lab.report(language=language)
    for line in verdict_lines(lab.study, lab.verdicts):
        say(line)
    say(f"report: {path}")


def _devices(text: str | None) -> tuple[int, ...] | str | None:
    return text if text is None or text == "cpu" else device_indices(text)


def clock_time(text: str, *, now: float | None = None) -> float:
    """Return the Unix time of `HH:MM` (the next one to come) or of an ISO date and time, in local time."""
    moment = datetime.datetime.fromtimestamp(time.time() if now is None else now)
    try:
        hours, minutes = (int(part) for part in text.split(":"))
        wanted = moment.replace(hour=hours, minute=minutes, second=0, microsecond=0)
        if wanted <= moment:
            wanted += datetime.timedelta(days=1)
    except ValueError:
        try:
            wanted = datetime.datetime.fromisoformat(text)
        except ValueError:
            raise ConfigError(f"--until {text!r}: expected HH:MM or a date such as 2026-01-31T08:00") from None
    return wanted.timestamp()


def stop(
    study: Annotated[str | None, typer.Argument(help="Study to stop; without it every study of the store.")] = None,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask launchers and workers to checkpoint and stop; the next run goes on from there."""
    from ablab.launch.launcher import stop as stop_launches
    from ablab.store.layout import open_store
    from ablab.study.loading import load

    name = None if study is None else load(study, profile=profile).name
    stopped = stop_launches(open_store(store), name)
    if as_json:
        print_json({"stopped": stopped})
    else:
        say("nothing was running" if not stopped else "stopped: " + ", ".join(map(str, stopped)))

"""`ablab serve`: the report live in the browser."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    from ablab.report.server import LiveReport, ReportServer

#: Tried first, so that a forwarded port and a bookmark go on working; a free one where it is taken.
USUAL_PORT = 8765


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("serve")(serve)


def serve(
    study: StudyArgument,
    overrides: OverrideArgument = None,
    port: Annotated[
        int | None, typer.Option("--port", help=f"Port; {USUAL_PORT} or a free one otherwise.", min=0, max=65535)
    ] = None,
    lang: Annotated[str, typer.Option("--lang", help="Language of the report: en, ko or zh.")] = "en",
    browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    profile: ProfileOption = "full",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the report in the browser, made anew whenever the store changes; read-only, for this machine, by a token.

    Ctrl-C ends it. From another machine, forward the port first: ssh -L 8765:127.0.0.1:8765 HOST
    """
    report = _live_report(study, overrides, profile=profile, store=store, lang=lang)
    server = _listen(report, port)
    if as_json:
        print_json({"url": server.url, "port": server.port})
    else:
        say(f"{server.url}")
        say("Ctrl-C ends it")
    if browser:
        import webbrowser

        webbrowser.open(server.url)
    with contextlib.suppress(KeyboardInterrupt), server:
        server.serve_forever(poll_interval=0.2)


def _live_report(study: str, overrides: list[str] | None, *, profile: str, store: str | None, lang: str) -> LiveReport:
    """Return the report of a study, read from its file and the store each time something changed."""
    from ablab.report import html, markdown
    from ablab.report.server import LiveReport
    from ablab.report.stamp import Stamp
    from ablab.report.writing import make_document

    lab = open_lab(study, overrides, profile=profile, store=store)
    folder = lab.store.study_folder(lab.study.name, profile)
    stamp = Stamp(lab.store, folder, files=(Path(study),))

    def render() -> tuple[str, str]:
        now = open_lab(study, overrides, profile=profile, store=store)
        document = make_document(now.view(language=lang))
        return html.render(document), markdown.render(document)

    return LiveReport(render, stamp)


def _listen(report: LiveReport, port: int | None) -> ReportServer:
    from ablab.report.server import ReportServer

    try:
        return ReportServer(report, port=USUAL_PORT if port is None else port)
    except OSError as error:
        if port is None:
            return ReportServer(report, port=0)
        raise ConfigError(f"port {port} of 127.0.0.1 cannot be had ({error.strerror}); leave --port out") from None

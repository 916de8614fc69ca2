"""What `ablab --help` lists: every command in one line, grouped by what one wants to do."""

from __future__ import annotations

from typing import Any

import typer
import typer.core

#: Group, its commands, and each in a few words; every command stands in one group.
GROUPS: dict[str, dict[str, str]] = {
    "From question to verdict": {
        "new": "write a first study: from a task, or from a command line",
        "check": "is the study sound? --probe builds each configuration",
        "plan": "what must run, what is reused, time and disk, critical path",
        "fetch": "download and verify models and data before any run",
        "run": "run what is left; kill it, run it again",
        "stop": "checkpoint and stop; the next run goes on",
        "report": "verdicts and the experiment log, as Markdown and HTML",
    },
    "While it runs": {
        "status": "each run's progress, time left, gap to its baseline",
        "watch": "the same live, with curves and devices",
        "logs": "a run's log, followed with -f",
        "serve": "the report in the browser, made anew as the store changes",
    },
    "Results": {
        "table": "results for a paper: LaTeX, Markdown, CSV",
        "figure": "curves and gaps as PDF, SVG, CSV",
        "compare": "any two runs or arms side by side",
        "show": "one run, whole",
        "digest": "what happened in a period, across studies",
        "note": "write into the study's journal",
        "notes": "read the journal",
        "import": "take figures from elsewhere as references",
    },
    "Models and data": {
        "export": "a run's model in the format that others load",
        "ask": "ask a vision-language model about an image",
        "search": "search a retriever's pool with a query of your own",
        "merge": "merge models of one base into one",
        "data": "describe, compare, filter, balance data files",
    },
    "Help and housekeeping": {
        "explain": "what a field of the study file means",
        "schema": "JSON Schema of study files, for editors",
        "env": "this machine, or a run's, as it was recorded",
        "gc": "remove what retention allows, forecast first",
    },
}


class Overview(typer.core.TyperGroup):
    """The group of all commands, listed by what one wants to do."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section a group of commands."""
        width = max(len(name) for name in self.commands)
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in commands.items()])

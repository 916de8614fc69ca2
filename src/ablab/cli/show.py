"""`ablab show` and `ablab env`: one run or artifact whole, and the environment it ran in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablab.cli.common import JsonOption, StoreOption, print_json, say

if TYPE_CHECKING:
    from ablab.store.layout import RunFolder

RunArgument = Annotated[
    str, typer.Argument(help="Run (folder name, key or its beginning), or EXPERIMENT[/seed[/stage]].")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("show")(show)
    app.command("env")(env)


def show(
    run: RunArgument,
    artifact: Annotated[str | None, typer.Argument(help="An artifact of the run, to print whole.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one run whole: what it was asked, how it went, what came out; or one artifact of it."""
    from ablab.report.find import find_run
    from ablab.store.layout import open_store

    folder = find_run(open_store(store), run)
    if artifact is not None:
        say(_artifact(folder, artifact))
        return
    facts = run_facts(folder)
    if as_json:
        print_json(facts)
        return
    for line in outline(facts):
        say(line)


def run_facts(folder: RunFolder) -> dict[str, Any]:
    """Return everything the store holds about a run, as plain values."""
    order, state, result = folder.read_order(), folder.read_state(), folder.read_result()
    return {
        "run": folder.name,
        "folder": str(folder.path),
        "order": None if order is None else order.model_dump(mode="json"),
        "state": None if state is None else state.model_dump(mode="json"),
        "result": None if result is None else result.model_dump(mode="json"),
        "issues": folder.read_issues(),
        "attempts": folder.attempts(),
        "artifacts": sorted(str(p.relative_to(folder.path)) for p in folder.artifacts.rglob("*") if p.is_file()),
    }


def outline(value: Any, *, indent: int = 0) -> list[str]:
    """Return nested values as indented lines, empty ones left out."""
    pad = "  " * indent
    lines: list[str] = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in items:
        label = f"{pad}- " if isinstance(value, list) and not isinstance(item, dict | list) else f"{pad}{name}: "
        if isinstance(item, dict | list):
            if item:
                lines.append(f"{pad}{name}:")
                lines.extend(outline(item, indent=indent + 1))
        elif item is not None:
            lines.append(f"{label}{item}")
    return lines


def _artifact(folder: RunFolder, name: str) -> str:
    from difflib import get_close_matches

    from ablab.contract.failure import ConfigError

    found = {str(path.relative_to(folder.path)): path for path in folder.path.rglob("*") if path.is_file()}
    path: Path | None = found.get(name) or found.get(f"artifacts/{name}")
    if path is None:
        near = get_close_matches(name, list(found), n=3, cutoff=0.3)
        raise ConfigError(f"{folder.name} has no file {name!r}" + (f"; nearest: {', '.join(near)}" if near else ""))
    data = path.read_bytes()
    if b"\0" in data[:4096]:
        raise ConfigError(f"{path} is not text ({len(data)} bytes); open it with its own tool")
    return data.decode("utf-8", errors="replace")


def env(
    run: Annotated[str | None, typer.Argument(help="A run; without it, this machine as it is now.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the environment snapshot: host, devices, disk, versions; secrets are never in it."""
    from ablab.store.files import read_json
    from ablab.store.layout import open_store
    from ablab.store.snapshot import environment

    if run is None:
        facts = environment()
    else:
        from ablab.report.find import find_run

        folder = find_run(open_store(store), run)
        facts = read_json(folder.attempt(folder.attempts()[-1]).environment)
    if as_json:
        print_json(facts)
        return
    for line in outline(facts):
        say(line)

"""docs/commands.md names every command, and no command, option or status that there is not."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer

from ablab.cli.main import app
from ablab.cli.overview import GROUPS

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
#: Commands with those below a group, by "group name" (`data describe`).
EVERY = COMMANDS | {
    f"{group} {name}": command
    for group, whole in COMMANDS.items()
    for name, command in getattr(whole, "commands", {}).items()
}


def test_every_command_has_a_row_with_an_example() -> None:
    rows = re.findall(r"^\| `([a-z]+)` \| (.+?) \| `ablab ([a-z]+)(?: .*)?` \|$", PAGE.read_text(), re.MULTILINE)
    assert {name for name, _, _ in rows} == set(COMMANDS)
    assert [name for name, _, example in rows if name != example] == []


def test_every_example_names_options_that_the_command_has() -> None:
    examples = re.findall(r"`ablab ([^`]+)`", PAGE.read_text())
    assert len(examples) > 20
    wrong = []
    for example in examples:
        name, *words = shlex.split(example)
        if getattr(COMMANDS[name], "commands", None):
            name = f"{name} {words.pop(0)}"
        known = {option for parameter in EVERY[name].params for option in parameter.opts} | {"--help"}
        wrong += [f"{name} {word}" for word in words if word.startswith("-") and word not in known]
    assert wrong == []


def test_options_told_in_the_text_exist_somewhere() -> None:
    told = set(re.findall(r"`(--[a-z-]+)", PAGE.read_text()))
    known = {option for command in EVERY.values() for parameter in command.params for option in parameter.opts}
    assert told - known - {"--help"} == set()


def test_the_overview_lists_every_command_once() -> None:
    listed = [name for commands in GROUPS.values() for name in commands]
    assert sorted(listed) == sorted(COMMANDS)

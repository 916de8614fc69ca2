"""`ablab explain`, `ablab schema`, `ablab new`: what a study file may say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ablab.cli.common import JsonOption, print_json, say
from ablab.contract.failure import ConfigError

TaskOption = Annotated[str, typer.Option("--task", help="Task whose keys are meant.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("explain")(explain)
    app.command("schema")(schema)
    app.command("new")(new)


def explain(
    key: Annotated[str, typer.Argument(help="Path of a field, for example pipeline.train.optimizer.learning_rate.")],
    task: TaskOption = "language-modeling",
) -> None:
    """Say what a field of the study file means: type, default, unit, range, and whether it enters a run's key."""
    from ablab.contract.registry import find_task
    from ablab.study.explain import explain as explain_key

    say(explain_key(key, find_task(task)))


def schema(task: TaskOption = "language-modeling") -> None:
    """Print the JSON Schema of study files, for editors."""
    from ablab.contract.registry import find_task
    from ablab.study.explain import json_schema

    print_json(json_schema(find_task(task)))


def new(
    path: Annotated[str, typer.Argument(help="Study file to write.")],
    task: Annotated[
        str | None, typer.Option("--task", help="Task to write an example of; language-modeling without any option.")
    ] = None,
    command: Annotated[
        str | None,
        typer.Option("--command", help='Command line to make a study of: "python train.py --lr 3e-4 --seed 1".'),
    ] = None,
    like: Annotated[str | None, typer.Option("--like", help="Built-in study to copy: gpt-oelm, tinyllava, ...")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a study file that runs as it is: a task's example, a command line of your own, or a built-in study.

    From a task: two arms, three seeds, a criterion, a control, two profiles. From a command: its flags become
    parameters, its seed the study's seeds, its files are found, and its metrics where its script shows them. Like a
    built-in study: a copy of it, to run or to change.
    """
    target = Path(path)
    if target.exists():
        raise ConfigError(f"{target} exists; choose another name, or remove it first")
    text = _new_text(target, task, command, like)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    if as_json:
        print_json({"study": str(target)})
    else:
        say(f"{target} written. Next: ablab check {target} && ablab run {target} --profile smoke")


def _new_text(target: Path, task: str | None, command: str | None, like: str | None) -> str:
    """Return the text of a new study."""
    given = [name for name, value in (("--task", task), ("--command", command), ("--like", like)) if value is not None]
    if len(given) > 1:
        raise ConfigError(f"found {' and '.join(given)}; give one of --task, --command and --like")
    if like is not None:
        from ablab.study.scaffold import built_in_study

        return built_in_study(like)
    if command is not None:
        from ablab.study.command_scaffold import command_scaffold

        return command_scaffold(command, name=target.stem, base=Path.cwd(), study_folder=target.parent)
    from ablab.contract.registry import find_task
    from ablab.study.scaffold import scaffold

    return scaffold(find_task(task or "language-modeling"), name=target.stem)

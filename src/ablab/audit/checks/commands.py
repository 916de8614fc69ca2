"""Commands: code and data that a program uses and the study does not declare, so that an edit would go unnoticed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ablab.audit.findings import finding, listed
from ablab.audit.view import AuditView, stage_place
from ablab.contract.command import Command
from ablab.contract.finding import Finding
from ablab.study.program_files import undeclared_files
from ablab.study.schema import Experiment, Stage


def undeclared(view: AuditView) -> Iterable[Finding]:
    """Errors: files beside the study that a program uses and that are not in its key."""
    for base, parameters, experiment, stage, users in _commands(view):
        found = undeclared_files(parameters, base)
        if found:
            told = "; ".join(f"{path} ({how})" for path, how in list(found.items())[:6])
            yield finding(
                view,
                "undeclared-file",
                "error",
                stage_place(experiment, stage),
                f"{stage.name} uses files that the study does not declare: {told}; an edit of them would not be "
                "noticed, and the program runs where they are not",
                remedy=f"add them to the stage: code: [{', '.join(found)}] (data: for what it only reads)",
                evidence=found,
                subjects=users,
            )


def missing_code(view: AuditView) -> Iterable[Finding]:
    """Errors: code files and folders that are not there."""
    for base, parameters, experiment, stage, users in _commands(view):
        missing = [path for path in parameters.code if not (base / path).exists()]
        if missing:
            yield finding(
                view,
                "missing-file",
                "error",
                stage_place(experiment, stage),
                f"{stage.name} declares code that does not exist: {listed(missing)} (looked for in {base})",
                remedy="correct `code:`, or set `folder:` to the folder that holds it",
                evidence={"missing": missing, "folder": str(base)},
                subjects=users,
            )


def _commands(view: AuditView) -> Iterator[tuple[Path, Command, Experiment, Stage, tuple[str, ...]]]:
    """Yield the distinct commands: folder, parameters, a stage that runs it, and the experiments that have it."""
    folder = Path(view.study.path).resolve().parent if view.study.path else Path.cwd()
    found: dict[str, tuple[Experiment, Stage, Command, list[str]]] = {}
    texts: dict[int, str] = {}
    for experiment, stage, parameters in _stages(view):
        text = texts.setdefault(id(parameters), parameters.model_dump_json())
        found.setdefault(text, (experiment, stage, parameters, []))[-1].append(experiment.name)
    for experiment, stage, parameters, users in found.values():
        yield (folder / parameters.folder).resolve(), parameters, experiment, stage, tuple(dict.fromkeys(users))


def _stages(view: AuditView) -> Iterator[tuple[Experiment, Stage, Command]]:
    for experiment in view.study.experiments.values():
        for stage in experiment.stages:
            if isinstance(stage.parameters, Command) and not experiment.planned:
                yield experiment, stage, stage.parameters


CHECKS = (missing_code, undeclared)

"""Refuses a launch that would write a secret into the store: in an order, in a code file, on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablab.contract.failure import ConfigError
from ablab.plan.graph import Run
from ablab.store.fingerprint import folder_files
from ablab.store.redact import find_secrets, holds_secret, known_secrets, redact
from ablab.study.schema import Study

_REMEDY = "pass it by the environment, or in a file .env beside the study, which is read and never stored"


def check_secrets(study: Study, runs: Iterable[Run], *, folder: Path, files: Iterable[str]) -> None:
    """Refuse what would be written down.

    Args:
        study: the study.
        runs: whose orders would be written.
        folder: of the study.
        files: code files that would be frozen, relative to it.

    Raises:
        ConfigError: the place of a secret; never the secret itself.
    """
    known = known_secrets()
    seen: set[int] = set()
    for run in runs:
        stage = run.stage
        if id(stage) in seen:
            continue
        seen.add(id(stage))
        blocks: dict[str, Any] = {f"pipeline.{stage.name}": stage.parameters, **stage.sections}
        for name, block in blocks.items():
            place = _place(block.model_dump(mode="json", by_alias=True), name, known)
            if place is not None:
                line = study.line(f"experiments.{run.experiment}.{place}") or study.line(f"defaults.{place}")
                where = f"{study.path}:{line}: " if line else ""
                raise ConfigError(f"{where}{place} of {run.experiment} holds a secret; {_REMEDY}", place=place)
    for file in files:
        _check_code(folder / Path(file).expanduser(), known)


def _place(value: Any, name: str, known: tuple[str, ...]) -> str | None:
    """Return where a secret stands in a value; None where there is none."""
    found = find_secrets(value, path=name)
    if found:
        return found[0]
    if redact(value, secrets=known) == value:
        return None
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        inner = _place(item, f"{name}[{key}]" if isinstance(key, int) else f"{name}.{key}", known)
        if inner is not None:
            return inner
    return name


def _check_code(path: Path, known: tuple[str, ...]) -> None:
    for file in folder_files(path) if path.is_dir() else [path]:
        try:
            text = file.read_text(encoding="utf-8", errors="ignore")
        except OSError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if holds_secret(line, secrets=known):
                raise ConfigError(f"{file}:{number}: the code holds a secret; {_REMEDY}", file=str(file))

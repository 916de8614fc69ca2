"""Orders for command stages around small scripts that the tests write."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablab.store.layout import RunFolder


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Folder of the study file."""
    folder = tmp_path / "study"
    folder.mkdir()
    return folder


@pytest.fixture
def make_command(make_run: Callable[..., RunFolder], study: Path) -> Callable[..., RunFolder]:
    """Write a script and an order that runs it; parameters of the stage by keyword."""

    def make(name: str, script: str = "", *, order: dict[str, Any] | None = None, **parameters: Any) -> RunFolder:
        if script:
            (study / "script.py").write_text(textwrap.dedent(script))
            parameters = {"command": f"{sys.executable} script.py", "code": ["script.py"], **parameters}
        values = {"kind": "command", "task": "command", "study_folder": str(study), **(order or {})}
        return make_run(name, parameters=parameters, **values)

    return make

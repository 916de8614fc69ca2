"""Runs commands as a user would, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

STUDIES = Path(__file__).parents[2] / "studies"

Ablab = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ablab(tmp_path: Path) -> Ablab:
    """Return a function that runs `ablab ARGS` in an empty folder with a store of its own."""

    def call(*arguments: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "ablab.cli.main", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"ABLAB_STORE": str(tmp_path / "lab"), "OMP_NUM_THREADS": "1"} | env,
            timeout=240,
        )
        if code is not None:
            assert done.returncode == code, done.stdout + done.stderr
        return done

    return call

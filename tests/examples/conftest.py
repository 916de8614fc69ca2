"""Runs the studies of `examples/` through the whole lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablab.lab import Lab, load

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def open_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that opens an example in a store of its own."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def open_it(name: str, *overrides: str, store: str = "lab", profile: str = "smoke") -> Lab:
        study = EXAMPLES / name / "study.yaml"
        return load(study, profile=profile, overrides=overrides, store=tmp_path / store)

    return open_it

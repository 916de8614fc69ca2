"""A package with a task of its own: found by its entry point, checked, planned, run; nothing in Ablab knows it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("PIL")
EXAMPLE = Path(__file__).parents[2] / "examples" / "image_classifier"


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which the package is installed, as an installer leaves it: files and metadata."""
    site = tmp_path / "site"
    shutil.copytree(EXAMPLE / "src", site)
    metadata = site / "picture_groups-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: picture-groups\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("[ablab.tasks]\npicture-groups = picture_groups.config:SPEC\n")
    return os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}


def test_it_keeps_the_labs_promises(installed: dict[str, str]) -> None:
    code = (
        "from ablab.testing import check_task\n"
        "found = check_task('picture-groups', sections={'model': {'channels': 4}}, train={'clip': None})\n"
        "print(found.overfit)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=installed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_its_study_runs(installed: dict[str, str], tmp_path: Path) -> None:
    command = ["run", str(EXAMPLE / "study.yaml"), "--profile", "smoke", "--store", str(tmp_path / "lab")]
    done = subprocess.run(
        [sys.executable, "-m", "ablab.cli.main", *command], env=installed, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 done" in done.stdout and "two" in done.stdout


def test_without_the_package_the_task_is_unknown_and_the_known_ones_are_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ablab.cli.main", "check", str(EXAMPLE / "study.yaml"), "--store", str(tmp_path)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (
        done.returncode == 2 and "unknown task 'picture-groups'" in done.stderr and "language-modeling" in done.stderr
    )

"""A disk that fills up during a launch: it pauses, and goes on when there is space again."""

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def mount(tmp_path):
    """Return a folder on which a small file system may be mounted, in a name space of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    trial = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True)
    if trial.returncode != 0:
        pytest.skip(f"no user name spaces here: {trial.stderr.decode().strip()}")
    return folder


def test_a_full_disk_pauses_and_loses_nothing(lab, mount, undisturbed, same, wait_for, tmp_path):
    lab.root = mount / "lab"
    kept = tmp_path / "kept"
    script = (
        f'mount -t tmpfs -o size=64m tmpfs "{mount}" && "$@"; code=$?; '
        f'cp -a "{mount}/lab" "{kept}" || exit 99; exit $code'
    )
    process = lab.start(["unshare", "-rm", "sh", "-c", script, "sh", *lab.command()])
    inside = Path(f"/proc/{process.pid}/root{mount}")
    assert wait_for(lambda: list(inside.glob("lab/runs/train-*/checkpoints/step-*")), process)
    ballast = inside / "ballast"
    fill(ballast)
    assert process.stdout is not None
    printed = []
    while not any("paused until" in line for line in printed):
        line = process.stdout.readline()
        assert line, "".join(printed)
        printed.append(line)
    ballast.unlink()
    text = "".join(printed) + lab.finish(process)
    assert "there is space on the disk again" in text
    lab.root = kept
    same(lab, text, undisturbed)
    issues = [issue for run in lab.runs() for issue in run.read_issues()]
    assert issues and {issue["kind"] for issue in issues} == {"disk-full"}


def fill(path):
    """Write a file until nothing more fits on its disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for block in (1 << 20, 4096, 1):
            while True:
                try:
                    if os.write(handle, b"\0" * block) < block:
                        break
                except OSError:
                    break
    finally:
        os.close(handle)

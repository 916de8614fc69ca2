"""Leases hold between real processes, end with them, and never with the launcher of a worker that lives on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ablab.launch.leases import Leases, lease_folder

HOLD = """
import os, sys; from pathlib import Path; from ablab.launch.leases import Leases
lease = Leases(Path(sys.argv[1])).take("GPU-1", run="theirs", share=int(sys.argv[2]))
print("none" if lease is None else lease.pid, flush=True)
sys.stdin.readline()
"""
CONTEND = """
import sys, time; from pathlib import Path; from ablab.launch.leases import Leases
leases, log = Leases(Path(sys.argv[1])), Path(sys.argv[2])
for _ in range(30):
    lease = leases.take("GPU-1", run="mine", share=2)
    if lease is None:
        continue
    with log.open("a") as file: file.write("+")
    time.sleep(0.001)
    with log.open("a") as file: file.write("-")
    leases.give(lease)
"""


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    return Leases(tmp_path / "leases")


@pytest.fixture
def holder(leases: Leases) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds GPU-1 until it is told, or killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(leases.folder), "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline().strip() == str(process.pid)
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_gpu_is_leased_once(leases: Leases) -> None:
    lease = leases.take("GPU-1", run="train-1")
    assert lease is not None and lease.alive
    assert leases.take("GPU-1", run="train-2") is None
    assert leases.take("GPU-2", run="train-2") is not None
    leases.give(lease)
    leases.give(lease)
    assert leases.take("GPU-1", run="train-2") is not None


def test_another_process_is_respected_and_named(leases: Leases, holder: subprocess.Popen[str]) -> None:
    assert leases.take("GPU-1", run="ours") is None
    (found,) = leases.holders("GPU-1")
    assert (found.pid, found.run) == (holder.pid, "theirs")
    assert str(holder.pid) in str(found) and "theirs" in str(found)


def test_a_lease_ends_with_a_killed_process(leases: Leases, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert leases.holders("GPU-1") == []
    assert leases.take("GPU-1", run="ours") is not None


def test_a_lease_moves_to_the_worker(leases: Leases, holder: subprocess.Popen[str]) -> None:
    lease = leases.take("GPU-2", run="ours")
    assert lease is not None
    moved = leases.move(lease, holder.pid)
    assert [held.pid for held in leases.holders("GPU-2")] == [holder.pid]
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not moved.alive
    assert leases.take("GPU-2", run="next") is not None


def test_the_smallest_wish_to_share_counts(leases: Leases) -> None:
    first, second = leases.take("GPU-1", run="a", share=3), leases.take("GPU-1", run="b", share=2)
    assert first is not None and second is not None
    assert leases.take("GPU-1", run="c", share=3) is None
    leases.give(second)
    assert leases.take("GPU-1", run="d", share=1) is None
    assert leases.take("GPU-1", run="c", share=3) is not None


def test_real_contention_never_exceeds_the_share(leases: Leases, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", CONTEND, str(leases.folder), str(log)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    held = most = 0
    for sign in log.read_text():
        held += 1 if sign == "+" else -1
        most = max(most, held)
    assert held == 0 and 1 <= most <= 2


def test_everybody_may_add_and_nobody_may_remove(leases: Leases) -> None:
    before = os.umask(0o077)
    try:
        leases.take("GPU-1", run="a")
    finally:
        os.umask(before)
    assert leases.folder.stat().st_mode & 0o7777 == 0o1777
    assert (leases.folder / "GPU-1.json").stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize("content", ["", "{", "[]", '{"leases": [{"pid": 1}]}', "\x00" * 100])
def test_a_damaged_file_holds_nothing(leases: Leases, content: str) -> None:
    leases.take("GPU-1", run="a")
    (leases.folder / "GPU-1.json").write_text(content)
    assert leases.holders("GPU-1") == []
    assert leases.take("GPU-1", run="b") is not None


def test_a_shorter_content_leaves_no_rest(leases: Leases) -> None:
    first, second = leases.take("GPU-1", run="a" * 500, share=2), leases.take("GPU-1", run="b", share=2)
    assert first is not None and second is not None
    leases.give(first)
    content = json.loads((leases.folder / "GPU-1.json").read_text())
    assert [lease["run"] for lease in content["leases"]] == ["b"]


def test_the_folder_is_the_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ABLAB_LEASES", raising=False)
    assert lease_folder() == Path("/var/tmp/ablab-leases")
    monkeypatch.setenv("ABLAB_LEASES", str(tmp_path))
    assert Leases().folder == tmp_path

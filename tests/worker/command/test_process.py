"""A program dies with its group, its worker, or its grace; its output arrives line by line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablab.contract.failure import ConfigError
from ablab.store.processes import process_start
from ablab.worker.command.process import Process, end_leftover

DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
CROWD = "import subprocess, time; subprocess.Popen(['sleep', '300']); print('up', flush=True); time.sleep(300)"


def start(tmp_path: Path, *command: str) -> Process:
    return Process(command, folder=tmp_path, env=os.environ, record=tmp_path / "record.json", write=lambda _: None)


def end(process: Process) -> int:
    limit = time.monotonic() + 60
    while not process.wait(0.05):
        assert time.monotonic() < limit
    process.close()
    assert process.exit is not None
    return process.exit


def group(pgid: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, its, stat in rows if int(its) == pgid and not stat.startswith("Z")]


def wait_until(condition) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_output_is_split_at_line_ends_and_carriage_returns(tmp_path: Path):
    process = start(tmp_path, "printf", r"a\nb 1%%\rb 2%%\r\ntorn")
    assert end(process) == 0
    assert process.lines() == ["a", "b 1%", "b 2%", "torn"] and list(process.tail)[-1] == "torn"


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -ABRT $$", -signal.SIGABRT)])
def test_the_exit_status_is_the_programs(tmp_path: Path, script: str, status: int):
    assert end(start(tmp_path, "sh", "-c", script)) == status


def test_a_program_that_is_not_there_is_named(tmp_path: Path):
    process = start(tmp_path, "no-such-program-at-all")
    with pytest.raises(ConfigError, match="no-such-program-at-all"):
        end(process)
    process.close()


@pytest.mark.parametrize(("script", "grace", "status"), [(CROWD, 60.0, -signal.SIGTERM), (DEAF, 0.2, -signal.SIGKILL)])
def test_a_request_reaches_the_whole_group_and_what_stays_is_killed(tmp_path: Path, script, grace, status):
    process = start(tmp_path, sys.executable, "-c", script)
    wait_until(lambda: process.tail)
    pgid = process._process.pid
    process.ask_to_stop(grace)
    assert end(process) == status
    wait_until(lambda: not group(pgid))


def test_what_a_program_leaves_behind_ends_with_it(tmp_path: Path):
    process = start(tmp_path, "sh", "-c", "sleep 300 & echo started")
    pgid = process._process.pid
    assert end(process) == 0 and process.lines() == ["started"]
    wait_until(lambda: not group(pgid))


def test_a_killed_worker_takes_its_program_along(tmp_path: Path):
    worker = """
import os, sys, time
from pathlib import Path
from ablab.worker.command.process import Process
p = Process(["sh", "-c", "sleep 300 & sleep 300"], folder=Path("."), env=os.environ, record=Path("record.json"),
            write=lambda _: None)
print(p._process.pid, flush=True)
time.sleep(300)
"""
    process = subprocess.Popen([sys.executable, "-c", worker], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    pgid = int(process.stdout.readline())
    wait_until(lambda: len(group(pgid)) >= 3)
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: not group(pgid))


def test_what_an_earlier_attempt_left_is_ended_and_nobody_else(tmp_path: Path):
    record = tmp_path / "record.json"
    assert not end_leftover(record)
    process = start(tmp_path, "sleep", "300")
    pid, content = process._process.pid, record.read_text()
    start_time = process_start(pid)
    record.write_text(content.replace(f'"{start_time}"', '"1"'))
    assert not end_leftover(record) and process_start(pid) == start_time, "another process by that number stays"
    record.write_text(content)
    assert end_leftover(record)
    assert end(process) == -signal.SIGKILL and not record.exists()
